/** A place in a log of the server. Pure. */

export class Cursor {
  /** `offset` is that of the last event seen; the next has `offset + 1`. */
  constructor(epoch, offset) {
    this.epoch = epoch;
    this.offset = offset;
    this.ahead = new Map(); // offset -> event, those that came before an earlier one did
  }

  get since() {
    return { epoch: this.epoch, offset: this.offset };
  }

  get gap() {
    return this.ahead.size > 0;
  }

  /** Take an event in; returns those that are due now, in order. One seen before gives none. */
  accept(offset, event) {
    if (offset <= this.offset) return [];
    this.ahead.set(offset, event);
    const due = [];
    while (this.ahead.has(this.offset + 1)) {
      this.offset += 1;
      due.push(this.ahead.get(this.offset));
      this.ahead.delete(this.offset);
    }
    return due;
  }
}
