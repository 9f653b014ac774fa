/**
 * Keeps a reader's place. At the end of the transcript it follows what comes; anywhere else
 * it never moves what is being read.
 */

const NEAR = 48; // px from the end that still count as being there
const HAND = 700; // ms after a touch of wheel, finger or key in which a scroll is the reader's own

export class Scroller {
  /** `onMoved()` is called after each scroll; `onTop()` when the reader comes near the top. */
  constructor(view, content, { onMoved, onTop }) {
    Object.assign(this, { view, content, onMoved, onTop, atEnd: true, handled: -HAND });
    for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"])
      view.addEventListener(kind, () => (this.handled = performance.now()), { passive: true });
    view.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const follow = new ResizeObserver(() => this.follow());
    follow.observe(view);
    follow.observe(content);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) this.atEnd = true;
    else if (scrollTop < this.last?.top && this.#byHand(scrollHeight, clientHeight)) this.atEnd = false;
    else this.follow();
    this.#note();
    this.onMoved();
    if (scrollTop < clientHeight) this.onTop();
  }

  /** A box that shrinks or grows scrolls too, but nobody has turned away from the end then. */
  #byHand(height, shown) {
    const still = this.last.height === height && this.last.shown === shown;
    return still || performance.now() - this.handled < HAND;
  }

  #note() {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    this.last = { top: scrollTop, height: scrollHeight, shown: clientHeight };
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
    this.#note();
    this.onMoved();
  }

  toElement(element, block = "center") {
    this.atEnd = false;
    element.scrollIntoView({ block, behavior: "instant" });
    this.#note();
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
      this.#note();
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
