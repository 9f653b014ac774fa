/**
 * Keeps a reader's place. At the end of the transcript it follows what comes; anywhere else
 * it never moves what is being read.
 */

const NEAR = 48; // px from the end that still count as being there

export class Scroller {
  /** `onMoved()` is called after each scroll; `onTop()` when the reader comes near the top. */
  constructor(view, content, { onMoved, onTop }) {
    Object.assign(this, { view, content, onMoved, onTop, atEnd: true });
    view.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const follow = new ResizeObserver(() => this.follow());
    follow.observe(view);
    follow.observe(content);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    // A box that grew is not a reader who scrolled up: only going up lets go of the end.
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) this.atEnd = true;
    else if (scrollTop < (this.lastTop ?? 0)) this.atEnd = false;
    this.lastTop = scrollTop;
    this.onMoved();
    if (scrollTop < clientHeight) this.onTop();
  }

  follow() {
    if (this.atEnd) this.toEnd();
  }

  toEnd({ smooth = false } = {}) {
    this.atEnd = true;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.view.scrollTo({
      top: this.view.scrollHeight,
      behavior: smooth && !calm ? "smooth" : "instant",
    });
    this.lastTop = this.view.scrollTop;
    this.onMoved();
  }

  toElement(element, block = "center") {
    this.atEnd = false;
    element.scrollIntoView({ block, behavior: "instant" });
    this.lastTop = this.view.scrollTop;
    this.#scrolled();
  }

  /** Change the content; what the reader looks at stays where it is. */
  keep(change) {
    if (this.atEnd) {
      change();
      this.toEnd();
      return;
    }
    const anchor = this.#anchor();
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) {
      this.view.scrollTop += anchor.getBoundingClientRect().top - before;
      this.lastTop = this.view.scrollTop;
    }
  }

  /** The first message that is in view. Messages lie in order: halve until it is found. */
  #anchor() {
    const top = this.view.getBoundingClientRect().top;
    const items = this.content.querySelectorAll(".message");
    let low = 0;
    let high = items.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle].getBoundingClientRect().bottom > top) high = middle;
      else low = middle + 1;
    }
    return items[low];
  }
}
