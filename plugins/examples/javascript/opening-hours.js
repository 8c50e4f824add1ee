// Admits clients between two hours of the day (UTC) only, and ends what is left at closing time.
// Settings: {"from": 8, "to": 18}; an hour before `from` means the next day: {"from": 22, "to": 6}.

import { document } from "sluice:policy/settings@0.0.1";

const HOUR = 3600n * 1000n;
const DAY = 24n * HOUR;

export const setup = {
  // A constant: which facts are wanted, which counters there are.
  describe: () => ({ name: "opening-hours", version: "0.1.0", facts: [], counters: [] }),

  // Every mistake, with a pointer to where it stands.
  validateSettings(text) {
    const settings = JSON.parse(text);
    const problem = (at, message) => ({ severity: "error", at, message });
    const unknown = Object.keys(settings).filter((key) => key !== "from" && key !== "to");
    const isHour = (hour) => Number.isInteger(hour) && hour >= 0 && hour <= 24;
    const wrong = ["from", "to"].filter((key) => !isHour(settings[key]));
    const same = wrong.length === 0 && settings.from === settings.to;
    return [
      ...unknown.map((key) => problem(`/${key}`, "there is no such key; there are: from, to")),
      ...wrong.map((key) => problem(`/${key}`, "this has to be a whole hour from 0 to 24")),
      ...(same ? [problem("/to", "this is never open; 0 to 24 is always")] : []),
    ];
  },
};

export const admission = {
  allocate(ctx) {
    const seconds = untilClosing(ctx.now);
    if (seconds === 0) {
      const denial = { code: "forbidden", message: "closed", auditTags: ["closed"], attributes: [] };
      return { tag: "deny", val: denial };
    }
    return { tag: "allow", val: { grant: grant(seconds) } };
  },

  // Whoever was let in may talk to anybody whom the relay's own guard lets them.
  permitPeers(ctx, allocation, peers) {
    const seconds = untilClosing(ctx.now);
    return peers.map(() => (seconds === 0 ? { tag: "abstain" } : { tag: "allow", val: grant(seconds) }));
  },
};

const grant = (seconds) => ({ validFor: seconds, auditTags: [], obligations: [] });

// Runtimes give 64-bit numbers as BigInt or as a number: this takes either.
function untilClosing(now) {
  const { from, to } = JSON.parse(document());
  const opened = BigInt(from) * HOUR;
  const length = (BigInt(to) * HOUR - opened + DAY) % DAY || DAY;
  const since = (BigInt(now) - opened + DAY) % DAY;
  return since < length ? Number((length - since + 999n) / 1000n) : 0;
}
