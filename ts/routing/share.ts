/** A link's share of this node's time. */

/** Behind a parent's link is everybody: it weighs as much as a large subtree. */
export const PARENT_WEIGHT = 1_024;

/** By how much a link's budgets are multiplied: the root of how many keys lie behind it, so that a relay of many nodes gets more and none takes all. */
export const share = (weight: number): number => Math.sqrt(Math.min(Math.max(weight, 1), 10_000));
