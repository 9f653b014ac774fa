// The Go reference of streams.py: the same job in the manner of Go's chat tutorials.
//
//	go SOURCE_PORT
//
// Prints the port it listens at. Each connection speaks as much of dm-rpc as reader.c does: a
// welcome, then llm_chat_prompt, whose reply is read from the source as server-sent events and
// written token by token. gorilla/websocket (Debian: golang-github-gorilla-websocket-dev), a
// goroutine that reads, one that writes what it gets by a channel, one for each reply; net/http,
// bufio.Scanner and encoding/json for the model.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	writeWait  = 10 * time.Second
	pingPeriod = 54 * time.Second
)

type prompt struct {
	Prompt string `json:"prompt"`
}

type event struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
}

type client struct {
	conn *websocket.Conn
	send chan []byte
}

var (
	upgrader = websocket.Upgrader{Subprotocols: []string{"dm-rpc"}}
	models   = &http.Client{}
	upstream string
)

func (c *client) say(values ...any) {
	text, err := json.Marshal(values)
	if err != nil {
		log.Fatal(err)
	}
	c.send <- text
}

func (c *client) write() {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	for {
		kind, text := websocket.PingMessage, []byte(nil)
		select {
		case text = <-c.send:
			kind = websocket.TextMessage
		case <-ticker.C:
		}
		c.conn.SetWriteDeadline(time.Now().Add(writeWait))
		if err := c.conn.WriteMessage(kind, text); err != nil {
			return
		}
	}
}

func (c *client) read() {
	defer c.conn.Close()
	for {
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		var call []json.RawMessage
		var asked prompt
		if json.Unmarshal(text, &call) != nil || len(call) < 2 || json.Unmarshal(call[1], &asked) != nil {
			return
		}
		go c.answer(asked.Prompt)
	}
}

func (c *client) answer(asked string) {
	body, err := json.Marshal(map[string]any{
		"model": "m", "stream": true,
		"messages": []map[string]string{{"role": "user", "content": asked}},
	})
	if err != nil {
		log.Fatal(err)
	}
	response, err := models.Post(upstream, "application/json", bytes.NewReader(body))
	if err != nil {
		log.Print(err)
		return
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data := bytes.TrimPrefix(lines.Bytes(), []byte("data:"))
		if len(data) == len(lines.Bytes()) {
			continue
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			break
		}
		var one event
		if err := json.Unmarshal(data, &one); err != nil {
			log.Print(err)
			return
		}
		if len(one.Choices) > 0 && one.Choices[0].Delta.Content != "" {
			c.say("llm_token", one.Choices[0].Delta.Content, nil)
		}
	}
	c.say("llm_end", map[string]string{"status": "done"}, nil)
}

func serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		log.Print(err)
		return
	}
	c := &client{conn: conn, send: make(chan []byte, 256)}
	c.say("welcome", map[string]string{}, nil)
	go c.write()
	c.read()
}

func main() {
	upstream = "http://127.0.0.1:" + os.Args[1] + "/v1/chat/completions"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { // it ends when its standard input does
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, http.HandlerFunc(serve)))
}
