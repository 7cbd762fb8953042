// The snapshots of one engine: has them taken and deleted as the plan says, and keeps its layers as it last listed them.
// What is asked of the engine goes one after the other, so that a list tells what became of all that was asked before it.

import { RequestError, type EngineRequester, type Layer } from '../native/index.js'
import type { RevertAnswer, SnapshotsPlan, SnapshotsReport, TakeAnswer } from './plan.js'

/** Taking one waits for flushes of all members; what is not answered by then the list tells. */
const takeLimitMs = 60_000
const deleteLimitMs = 30_000
const revertLimitMs = 60_000
const listLimitMs = 30_000

/** After a change that failed, before the engine is asked for another one; and after a list that failed. */
const againMs = 1_000
/** Where there are layers under the head: they are merged, and the head grows. */
const lookAgainMs = 60_000

/** Nobody knows whether it took place: it is asked for again, and takes place once. */
const unanswered: ReadonlySet<string> = new Set(['unavailable', 'cancelled', 'connection-lost', 'gone', 'timeout'])

const none: SnapshotsPlan = { take: [], absent: [] }

export class SnapshotsController {
  #plan: SnapshotsPlan = none
  /** The engine's process that serves; undefined: none can be asked. */
  #pid: number | undefined
  readonly #answers = new Map<string, TakeAnswer>()
  /**
   * Of layers that are to be absent: why their last deletion failed, or empty: it did not, and the list has yet to show
   * it. The one that was tried last is at the end.
   */
  readonly #deletions = new Map<string, string>()
  /** Invariant: of the process #pid, and from after all that was asked of it. */
  #layers: Layer[] | undefined
  #listedMs = 0
  /** For people to see, and for nothing else: the last list of the process #pid. */
  #shown: Layer[] | undefined
  /** The list that somebody waits for to see it. */
  #looking: Promise<void> | undefined
  #taking: string | undefined
  #reverted: RevertAnswer | undefined
  #working = false
  /**
   * Before these times the engine is not asked for changes, and for lists. A change that failed is followed by a list at
   * once: what is there is known then, while the change waits.
   */
  #changesAgainMs = 0
  #listsAgainMs = 0
  #timer: NodeJS.Timeout | undefined

  constructor(
    private readonly requests: EngineRequester,
    private readonly changed: () => void,
  ) {}

  report(): SnapshotsReport {
    return {
      answers: this.#plan.take.flatMap(({ layer }) => this.#answers.get(layer) ?? []),
      ...(this.#layers === undefined ? {} : { layers: this.#layers }),
      ...(this.#taking === undefined ? {} : { taking: this.#taking }),
      ...(this.#reverted === undefined ? {} : { revert: this.#reverted }),
      troubles: [...this.#deletions].flatMap(([layer, message]) => (message === '' ? [] : [{ layer, message }])),
    }
  }

  /** Level-triggered. `pid`: of the process that can be asked. */
  follow(plan: SnapshotsPlan | undefined, pid: number | undefined): void {
    this.#plan = plan ?? none
    if (pid !== this.#pid) {
      this.#pid = pid
      this.#layers = this.#shown = this.#looking = undefined
      this.#changesAgainMs = this.#listsAgainMs = 0
    }
    for (const layer of this.#answers.keys()) if (!this.#isToTake(layer)) this.#answers.delete(layer)
    if (this.#reverted?.layer !== this.#plan.revert?.layer) this.#reverted = undefined
    const absent = new Set(this.#plan.absent)
    for (const layer of this.#deletions.keys()) if (!absent.has(layer)) this.#deletions.delete(layer)
    void this.#work()
  }

  /** As they are now; as they were last where the engine does not answer; undefined: it never has. */
  async layers(limitMs: number): Promise<Layer[] | undefined> {
    if (this.#pid === undefined) return undefined
    // All who wait share one request: an engine that is at something else has no queue of them.
    this.#looking ??= this.#look()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs)
    })
    await Promise.race([this.#looking, late])
    clearTimeout(timer)
    return this.#shown
  }

  async #look(): Promise<void> {
    const pid = this.#pid
    try {
      const { layers } = await this.requests.send('list-layers', {}, listLimitMs)
      if (this.#pid === pid) this.#shown = layers
    } catch {
      // What was shown last is shown.
    }
    if (this.#pid === pid) this.#looking = undefined
  }

  #isToTake(layer: string): boolean {
    return this.#plan.take.some((take) => take.layer === layer)
  }

  async #work(): Promise<void> {
    clearTimeout(this.#timer)
    if (this.#working) return
    this.#working = true
    for (let next = this.#next(); next !== undefined; next = this.#next()) await next()
    this.#working = false
    if (this.#pid === undefined) return
    const restMs = (this.#layers === undefined ? this.#listsAgainMs : this.#changesAgainMs) - performance.now()
    const waitMs = restMs > 0 ? restMs : this.#isSettling() ? againMs : this.#hasSnapshots() ? lookAgainMs : undefined
    if (waitMs === undefined) return
    this.#timer = setTimeout(() => {
      void this.#work()
    }, waitMs).unref()
  }

  /** The next thing to ask the engine for. */
  #next(): (() => Promise<void>) | undefined {
    if (this.#pid === undefined) return undefined
    const nowMs = performance.now()
    const layers = this.#layers
    if (layers === undefined || this.#isOld()) return nowMs < this.#listsAgainMs ? undefined : () => this.#list()
    if (nowMs < this.#changesAgainMs) return undefined
    const take = this.#plan.take.find(({ layer }) => !this.#answers.has(layer))
    if (take !== undefined) return () => this.#take(take)
    const { revert } = this.#plan
    if (revert !== undefined && this.#reverted === undefined) return () => this.#revert(revert)
    const unwanted = this.#unwanted(layers)
    return unwanted === undefined ? undefined : () => this.#delete(unwanted)
  }

  /** The one that was tried longest ago. The list is of one member: what failed is there at another one, perhaps. */
  #unwanted(layers: readonly Layer[]): string | undefined {
    const absent = new Set(this.#plan.absent)
    const there = layers.flatMap(({ name, removed }) => (!removed && absent.has(name) ? [name] : []))
    const untried = there.find((name) => !this.#deletions.has(name))
    if (untried !== undefined) return untried
    return [...this.#deletions].find(([name, message]) => message !== '' || there.includes(name))?.[0]
  }

  async #list(): Promise<void> {
    const pid = this.#pid
    try {
      const { layers } = await this.requests.send('list-layers', {}, listLimitMs)
      if (this.#pid !== pid) return
      this.#layers = this.#shown = layers
      this.#listedMs = performance.now()
    } catch {
      if (this.#pid !== pid) return
      // What it said before may not hold any more, and nothing may be concluded from it.
      this.#layers = undefined
      this.#listsAgainMs = performance.now() + againMs
    }
    this.changed()
  }

  async #take(take: SnapshotsPlan['take'][number]): Promise<void> {
    const pid = this.#pid
    const { layer } = take
    this.#layers = undefined
    this.#taking = layer
    this.changed()
    let answer: TakeAnswer
    try {
      const { pauseNs } = await this.requests.send('take-snapshot', take, takeLimitMs)
      answer = { layer, taken: true, pauseNs }
    } catch (error) {
      answer = { layer, taken: false, ...explain(error) }
      if (this.#pid === pid) this.#rest()
    }
    this.#taking = undefined
    if (this.#isToTake(layer)) this.#answers.set(layer, answer)
    this.changed()
  }

  async #revert(revert: NonNullable<SnapshotsPlan['revert']>): Promise<void> {
    const pid = this.#pid
    const { layer } = revert
    this.#layers = undefined
    this.changed()
    let answer: RevertAnswer | undefined
    try {
      const { pauseNs } = await this.requests.send('revert', revert, revertLimitMs)
      answer = { layer, reverted: true, pauseNs }
    } catch (error) {
      const explained = explain(error)
      if (!unanswered.has(explained.code)) answer = { layer, reverted: false, ...explained }
      if (this.#pid === pid) this.#rest()
    }
    if (this.#plan.revert?.layer === layer) this.#reverted = answer
    this.changed()
  }

  async #delete(layer: string): Promise<void> {
    const pid = this.#pid
    this.#layers = undefined
    this.changed()
    try {
      await this.requests.send('delete-snapshot', { layer }, deleteLimitMs)
      if (this.#deletions.get(layer) === '') this.#rest() // It was listed all the same: not again at once.
      this.#tried(layer, '')
    } catch (error) {
      if (this.#pid === pid) this.#rest()
      const { code, message } = explain(error)
      this.#tried(layer, `${message} (${code})`)
    }
    this.changed()
  }

  #tried(layer: string, message: string): void {
    this.#deletions.delete(layer)
    if (this.#plan.absent.includes(layer)) this.#deletions.set(layer, message)
  }

  #rest(): void {
    this.#changesAgainMs = performance.now() + againMs
  }

  #isOld(): boolean {
    const ageMs = performance.now() - this.#listedMs
    return (this.#isSettling() && ageMs >= againMs) || (this.#hasSnapshots() && ageMs >= lookAgainMs)
  }

  /** One is about to be sealed or deleted. */
  #isSettling(): boolean {
    return this.#layers?.some(({ name, removed, sealed }) => name !== '' && !removed && !sealed) ?? false
  }

  #hasSnapshots(): boolean {
    return (this.#layers?.length ?? 0) > 1
  }
}

function explain(error: unknown): { code: string; message: string } {
  if (error instanceof RequestError) return { code: error.code, message: error.message }
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) }
}
