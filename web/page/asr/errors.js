// An error that a user can act on: what is wrong, what was expected, what was found, what to do.

export class PageError extends Error {
  constructor(what, { expected = "", found = "", todo = "" } = {}) {
    const parts = [expected && `Expected: ${expected}.`, found && `Found: ${found}.`, todo && `To do: ${todo}.`];
    super([what, ...parts.filter(Boolean)].join(" "));
    this.name = "PageError";
  }
}
