/** Numbers that a seed gives again (Marsaglia, «Xorshift RNGs», 2003: the 32-bit one with 13, 17, 5). */
export class Random {
  #state: number

  constructor(seed: number) {
    // Spread, so that neighbours differ from the beginning; zero is the one state that it never leaves.
    this.#state = Math.imul(seed + 1, 2_654_435_761) >>> 0 || 1
    for (let n = 0; n < 8; n++) this.below(2)
  }

  /** From 0 on. */
  below(limit: number): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state >>> 0
    return this.#state % limit
  }

  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  pick<T>(all: readonly T[]): T {
    return all[this.below(all.length)]!
  }

  chance(percent: number): boolean {
    return this.below(100) < percent
  }
}
