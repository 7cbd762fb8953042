// How far a long work is: one line on a terminal, lines of JSON for programs that ask for them, and else nothing.
import type { Progress } from '../image/index.js'
import { formatBytes } from '../manager/volume-spec.js'

export interface ProgressOutput {
  /** What is done: «Exporting volume data». */
  what: string
  json: boolean
  isTerminal: boolean
  /** To the terminal. */
  tell: (text: string) => void
  /** A line of JSON. */
  emit: (document: object) => void
  nowMs: () => number
}

const terminalEveryMs = 200
const jsonEveryMs = 1000

export class ProgressReport {
  readonly #output: ProgressOutput
  readonly #begunMs: number
  /** When there was something to count. */
  #countedMs: number | undefined
  #lastMs = -Infinity
  #waiting = ''
  #isShown = false

  constructor(output: ProgressOutput) {
    this.#output = output
    this.#begunMs = output.nowMs()
  }

  /** So that a person sees what is done before there is anything to count. */
  stage(text: string): void {
    if (this.#output.isTerminal && !this.#output.json) this.#show(text)
  }

  update({ doneBytes, totalBytes }: Progress): void {
    const { json, isTerminal, emit, nowMs } = this.#output
    if (!json && !isTerminal) return
    const now = nowMs()
    this.#countedMs ??= now
    if (now - this.#lastMs < (json ? jsonEveryMs : terminalEveryMs)) return
    this.#lastMs = now
    const passedMs = now - this.#countedMs
    const bytesPerSecond = passedMs < 1 ? 0 : Math.round((doneBytes * 1000) / passedMs)
    if (json) emit({ event: 'progress', doneBytes, totalBytes, bytesPerSecond })
    else this.#show(progressLine(this.#output.what, { doneBytes, totalBytes, bytesPerSecond, waiting: this.#waiting }))
  }

  /** Why it does not go on; empty: it does. */
  waits(reason: string): void {
    const { json, isTerminal, what } = this.#output
    if (reason === this.#waiting || json || !isTerminal) return
    this.#waiting = reason
    this.#show(`${what}${reason === '' ? '' : `, which waits: ${reason}`}`)
  }

  seconds(): number {
    return Math.round(this.#output.nowMs() - this.#begunMs) / 1000
  }

  /** What stands on the terminal goes. */
  end(): void {
    if (this.#isShown) this.#output.tell('\r\u001b[K')
    this.#isShown = false
  }

  #show(line: string): void {
    this.#isShown = true
    this.#output.tell(`\r\u001b[K${line}`)
  }
}

export interface ProgressNow extends Progress {
  bytesPerSecond: number
  waiting: string
}

export function progressLine(what: string, { doneBytes, totalBytes, bytesPerSecond, waiting }: ProgressNow): string {
  const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes)
  const parts = [`${percent} % of ${formatBytes(totalBytes)}`, `${formatBytes(bytesPerSecond)}/s`]
  if (bytesPerSecond > 0) parts.push(`${durationText((totalBytes - doneBytes) / bytesPerSecond)} to go`)
  if (waiting !== '') parts.push(`waits: ${waiting}`)
  return `${what}: ${parts.join(', ')}`
}

/** «8 s», «12 min», «3 h 5 min». */
export function durationText(seconds: number): string {
  const minutes = Math.round(seconds / 60)
  if (seconds < 100) return `${Math.ceil(seconds)} s`
  if (minutes < 100) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** Of this process. */
export function reportProgress(what: string, json: true | undefined): ProgressReport {
  return new ProgressReport({
    ...{ what, json: json ?? false, isTerminal: process.stderr.isTTY },
    tell: (text) => process.stderr.write(text),
    emit: (document) => process.stdout.write(`${JSON.stringify(document)}\n`),
    nowMs: () => performance.now(),
  })
}
