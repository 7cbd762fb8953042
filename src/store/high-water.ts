// Tells a store that was restored from a copy from one that has gone on (rule 6). Beside the database lies a file with the
// number of the newest change of any volume's members. A copy of the database that is put back is behind it, and a copy
// that is put elsewhere has no such file: it must not be copied with the database.

import { closeSync, constants, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'

/** Overwritten in place: always as many bytes, so that a torn write is a number that is too high, or none at all. */
const digits = 16

export class HighWater {
  readonly #path: string
  #value: number

  private constructor(path: string, value: number) {
    this.#path = path
    this.#value = value
  }

  /** `isBehind`: the store has volumes, and is older than what was written here, or nothing readable is. */
  static open(path: string, sequence: number, hasVolumes: boolean): { highWater: HighWater; isBehind: boolean } {
    const value = readNumber(path)
    const isBehind = hasVolumes && (value === undefined || value > sequence)
    const highWater = new HighWater(path, isBehind ? -1 : (value ?? -1))
    highWater.raise(sequence)
    return { highWater, isBehind }
  }

  /** Durable when it returns. Throws what the file system says. */
  raise(sequence: number): void {
    if (sequence <= this.#value) return
    const target = openSync(this.#path, constants.O_WRONLY | constants.O_CREAT, 0o600)
    try {
      writeSync(target, `${String(sequence).padStart(digits, '0')}\n`, 0)
      fdatasyncSync(target)
    } finally {
      closeSync(target)
    }
    this.#value = sequence
  }
}

function readNumber(path: string): number | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
  return /^\d{16}\n$/.test(text) ? Number(text) : undefined
}
