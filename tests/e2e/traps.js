// Put into every page and frame before its own scripts: notes whatever must not happen.
"use strict";
(() => {
  const caught = [];
  const trap = (what) => caught.push(String(what).slice(0, 300));
  const fixed = (name, value) => Object.defineProperty(globalThis, name, { value });
  fixed("caught", caught);
  fixed("pwn", () => trap(`a script ran: ${new Error().stack}`));
  for (const name of ["alert", "confirm", "prompt", "open"]) fixed(name, () => trap(name));
  fixed("keysOfAll", Object.getOwnPropertyNames(Object.prototype).join());
  addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) =>
    trap(`the policy had to stop ${violatedDirective} ${blockedURI} ${sample}`),
  );

  const TAGS = new Set(
    ("a aside b blockquote body br button code dd del dialog div em fieldset footer form h1 h2 h3 h4 h5 h6 " +
      "head header hr html i img input label legend li link main mark meta nav noscript ol option p path " +
      "circle pre rect s script section select small span strong svg symbol table tbody td textarea th " +
      "thead time title tr ul use").split(" "),
  );
  const WRITTEN = new Set(
    ("a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s strong table tbody td th thead tr ul " +
      "button svg use").split(" "),
  );
  const HREF = /^(https?:|mailto:)|^(?![a-z0-9+.-]*:)/i;
  const SOURCES = new Set(["/icon.svg", "/theme.js", "/script.js"]);

  function audit(element) {
    const tag = element.localName;
    const wrong = (why) => trap(`${why}: ${element.outerHTML.slice(0, 200)}`);
    if (!TAGS.has(tag)) wrong("an element that is not ours");
    for (const { name, value } of element.attributes) {
      if (/^on|srcdoc|srcset|^ping$|^action|formaction|background|poster/.test(name)) wrong(`attribute ${name}`);
      if (name === "href" && !HREF.test(value.replace(/[\s\x00-\x20]/g, ""))) wrong("an address");
      if (name === "src" && !SOURCES.has(value)) wrong("a source");
      if (name === "style" && !element.matches(".avatar, textarea, #room-menu, #composer")) wrong("a style");
    }
    if (!element.closest(".body") || element.matches(".body")) return;
    if (!WRITTEN.has(tag)) wrong("in a message");
    if (element.id || element.getAttribute("name")) wrong("a name to clobber with");
    if (tag === "a" && !/noopener.*noreferrer.*nofollow/.test(element.rel)) wrong("a link");
  }

  new MutationObserver((records) => {
    for (const { addedNodes, target, type } of records) {
      if (type === "attributes") audit(target);
      for (const node of addedNodes) {
        if (node.nodeType !== Node.ELEMENT_NODE) continue;
        audit(node);
        for (const inner of node.querySelectorAll("*")) audit(inner);
      }
    }
  }).observe(document, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["href", "src", "style", "srcdoc", "rel", "onclick", "onerror", "onload"],
  });
})();
