// Work that is undone when somebody interrupts it.
import { AnkoleError } from '../api/errors.js'

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Gives `work` a signal that a first Ctrl-C raises, so that it undoes what it did; a second one ends the process at once. */
export async function interruptible<T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const aborting = new AbortController()
  const onSignal = (): void => {
    if (aborting.signal.aborted) process.exit(130)
    aborting.abort(new AnkoleError('cancelled', `${what} was interrupted, and undone.`))
  }
  for (const name of signals) process.on(name, onSignal)
  try {
    return await work(aborting.signal)
  } finally {
    for (const name of signals) process.off(name, onSignal)
  }
}
