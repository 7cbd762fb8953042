import { AnkoleError } from '../api/errors.js'

/** Who waits for something to become so, which may be so after each change. */
export class Waiters {
  readonly #looks = new Set<() => void>()
  #stopped = false

  /**
   * Resolves with what `check` first returns other than undefined; asks it now and after each change. Rejects with what
   * it throws, with timed-out, and with unavailable once nothing changes any more.
   */
  waitFor<T>(what: string, timeoutMs: number, check: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#looks.delete(look)
      }
      const look = (): void => {
        try {
          if (this.#stopped) throw new AnkoleError('unavailable', `Ankole is stopping; it was not waited for ${what}.`)
          const result = check()
          if (result === undefined) return
          end()
          resolve(result)
        } catch (error) {
          end()
          reject(error instanceof Error ? error : new Error(String(error)))
        }
      }
      const timer = setTimeout(() => {
        end()
        reject(new AnkoleError('timed-out', `After ${timeoutMs / 1000} s there is still no ${what}.`))
      }, timeoutMs)
      this.#looks.add(look)
      look()
    })
  }

  /** Something changed. */
  tell(): void {
    for (const look of [...this.#looks]) look()
  }

  /** Nothing changes any more. */
  stop(): void {
    this.#stopped = true
    this.tell()
  }
}
