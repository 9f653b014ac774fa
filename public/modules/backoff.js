/** Pauses between attempts to connect. Pure. */

const FIRST = 500; // ms; a restart of the server takes about this long
export const CAP = 30_000; // ms; longer feels dead to somebody who is watching
const OVERLOADED = 5_000; // ms; the least after 1013, when the server asked for air

/**
 * The pause before attempt `attempt` (0 is the first after a loss), in ms.
 * It doubles up to CAP; a random half keeps a thousand pages from coming back in one instant.
 */
export function pause(attempt, { random = Math.random, overloaded = false } = {}) {
  const whole = Math.min(CAP, FIRST * 2 ** Math.min(attempt, 16));
  const jittered = whole / 2 + (random() * whole) / 2;
  return overloaded ? Math.max(OVERLOADED * (0.5 + random()), jittered) : jittered;
}
