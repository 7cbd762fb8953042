// What a client did to a volume and what it was told, block by block, and whether one register a block can have told it:
// rule 4 (linearizable) and «what may be lost» of the design.
//
// A register whose writes are all different is checked exactly, and in n log n (Gibbons and Korach, «Testing Shared
// Memories», SIAM J. Comput. 26, 1997): all operations of one value are a cluster, its zone lies between the first end and
// the last begin among them. Where the first end comes first (a forward zone) the register held that value throughout the
// zone. A history has an order if and only if no two forward zones overlap, no other zone lies wholly inside a forward
// one, and nothing is read before it was written.

/** What nobody wrote, or what was unmapped. */
export const zero = 0

/** Begin and end are numbers of events of the one process that did it all, so that no two are the same. */
export interface Write {
  value: number
  begin: number
  /** Infinity while it is in flight. */
  end: number
  /** Where it was not, but has ended, nobody knows whether it was carried out. */
  answered: boolean
}

interface Read {
  value: number
  begin: number
  end: number
}

/**
 * From one moment at which the block's content was fixed, with nothing in flight, to the next: the beginning, an unmap,
 * a loss of power.
 */
interface Era {
  /** One of these it held at the beginning. */
  initial: readonly number[]
  why: 'new' | 'unmap' | 'power-loss'
  /** When it was fixed: an unmap counts from its end. */
  from: number
  writes: Write[]
  reads: Read[]
}

export interface Violation {
  block: number
  what: string
}

export class History {
  readonly #eras = new Map<number, Era[]>()
  #event = 0
  #values = 0
  /** When the flush began that was answered last. What had ended by then survives any loss of power. */
  #flushedFrom = -1
  readonly #inFlight = new Set<Write>()
  acknowledgedWrites = 0
  reads = 0
  flushes = 0
  unmaps = 0

  /** To be stamped on the data. */
  beginWrite(block: number): Write {
    const write = { value: ++this.#values, begin: ++this.#event, end: Infinity, answered: false }
    this.#era(block).writes.push(write)
    this.#inFlight.add(write)
    return write
  }

  endWrite(write: Write): void {
    write.end = ++this.#event
    write.answered = true
    this.#inFlight.delete(write)
    this.acknowledgedWrites++
  }

  /** For the begin of a read, a flush or an unmap. */
  begin(): number {
    return ++this.#event
  }

  endRead(block: number, begin: number, value: number): void {
    this.#era(block).reads.push({ value, begin, end: ++this.#event })
    this.reads++
  }

  endFlush(begin: number): void {
    this.#event++
    this.#flushedFrom = Math.max(this.#flushedFrom, begin)
    this.flushes++
  }

  /** The caller keeps everything else away from the block until its unmap is answered. */
  endUnmap(block: number): void {
    this.#erasOf(block).push({ initial: [zero], why: 'unmap', from: ++this.#event, writes: [], reads: [] })
    this.unmaps++
  }

  /** Its session is over, and the next has begun: it was carried out by now, or never will be. */
  settle(write: Write): void {
    write.end = ++this.#event
    this.#inFlight.delete(write)
  }

  /** All replicas lost power. What was not flushed may be there or not. */
  powerLost(): void {
    for (const write of this.#inFlight) this.settle(write)
    for (const eras of this.#eras.values()) {
      const initial = this.#survivors(eras)
      eras.push({ initial, why: 'power-loss', from: ++this.#event, writes: [], reads: [] })
    }
  }

  /** What a block may hold after a loss of power: all that was not overwritten by something that was flushed. */
  #survivors(eras: readonly Era[]): number[] {
    const values = new Set<number>()
    for (const era of [...eras].reverse()) {
      const flushed = era.writes.filter(({ answered, end }) => answered && end < this.#flushedFrom)
      for (const write of era.writes) {
        if (!flushed.some(({ begin }) => begin > write.end)) values.add(write.value)
      }
      if (flushed.length > 0) break
      for (const value of knownInitial(era)) values.add(value)
      // An unmap that was not flushed may vanish like a write.
      if (era.why !== 'unmap' || era.from < this.#flushedFrom) break
    }
    return [...values]
  }

  check(): Violation[] {
    const violations: Violation[] = []
    for (const [block, eras] of this.#eras) {
      for (const era of eras) {
        for (const what of checkEra(era)) violations.push({ block, what })
      }
    }
    return violations
  }

  /** For the log of a failed run. */
  describe(block: number): string[] {
    return this.#erasOf(block).flatMap((era) => [
      `from ${era.from} (${era.why}): ${era.initial.join(' or ')}`,
      ...[...era.writes.map((op) => ({ ...op, is: 'write' })), ...era.reads.map((op) => ({ ...op, is: 'read' }))]
        .sort((one, other) => one.begin - other.begin)
        .map(({ is, value, begin, end }) => `  ${begin}–${end} ${is} ${value}`),
    ])
  }

  #era(block: number): Era {
    return this.#erasOf(block).at(-1)!
  }

  #erasOf(block: number): Era[] {
    const known = this.#eras.get(block)
    if (known !== undefined) return known
    const eras: Era[] = [{ initial: [zero], why: 'new', from: 0, writes: [], reads: [] }]
    this.#eras.set(block, eras)
    return eras
  }
}

function checkEra({ initial, why, from, writes, reads }: Era): string[] {
  const found: string[] = []
  const read = new Map<number, Read[]>()
  for (const one of reads) {
    const same = read.get(one.value)
    if (same === undefined) read.set(one.value, [one])
    else same.push(one)
  }
  const zones: Zone[] = []
  for (const { value, begin, end, answered } of writes) {
    const of = read.get(value)
    read.delete(value)
    // Nobody saw it, so it need not have been.
    if (of === undefined && !answered) continue
    const early = of?.find((one) => one.end < begin)
    if (early !== undefined) found.push(`value ${value} was read (${early.begin}–${early.end}) before it was written`)
    zones.push(zoneOf(value, [{ begin, end }, ...(of ?? [])]))
  }
  // What is left was there before, or nobody wrote it here.
  const before = [...read.entries()].filter(([value]) => initial.includes(value))
  for (const [value, [first]] of read.entries()) {
    if (initial.includes(value)) continue
    found.push(
      `value ${value} was read (${first!.begin}–${first!.end}), and the block cannot hold it: ${expected(initial, why)}`,
    )
  }
  if (before.length > 1) {
    found.push(`after a ${why} it was read as ${before.map(([value]) => value).join(' and as ')}`)
  }
  for (const [value, of] of before) zones.push(zoneOf(value, [{ begin: from, end: from }, ...of]))
  return [...found, ...conflicts(zones)]
}

interface Zone {
  value: number
  firstEnd: number
  lastBegin: number
}

function zoneOf(value: number, operations: { begin: number; end: number }[]): Zone {
  const firstEnd = Math.min(...operations.map(({ end }) => end))
  const lastBegin = Math.max(...operations.map(({ begin }) => begin))
  return { value, firstEnd, lastBegin }
}

function conflicts(zones: readonly Zone[]): string[] {
  const forward = zones
    .filter(({ firstEnd, lastBegin }) => firstEnd < lastBegin)
    .sort((a, b) => a.firstEnd - b.firstEnd)
  const found: string[] = []
  for (const [n, zone] of forward.entries()) {
    const next = forward[n + 1]
    if (next !== undefined && next.firstEnd < zone.lastBegin) found.push(contradiction(zone, next))
  }
  for (const zone of zones) {
    if (zone.firstEnd < zone.lastBegin) continue
    // Forward zones that do not overlap are in the order of their ends too: the last that begins before is the only one.
    const around = lastBefore(forward, zone.lastBegin)
    if (around !== undefined && around.lastBegin > zone.firstEnd) found.push(contradiction(around, zone))
  }
  return found
}

function contradiction(held: Zone, other: Zone): string {
  return (
    `value ${held.value} was there from ${held.firstEnd} to ${held.lastBegin}, ` +
    `and value ${other.value} some time between ${Math.min(other.firstEnd, other.lastBegin)} and ` +
    `${Math.max(other.firstEnd, other.lastBegin)}: one of them came back or was lost`
  )
}

/** `zones` by their first end. */
function lastBefore(zones: readonly Zone[], event: number): Zone | undefined {
  let [low, high] = [0, zones.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (zones[middle]!.firstEnd < event) low = middle + 1
    else high = middle
  }
  return zones[low - 1]
}

/** What reads have shown the beginning of an era to be; all that it may be, where nobody read it. */
function knownInitial({ initial, reads }: Era): readonly number[] {
  const seen = reads.find(({ value }) => initial.includes(value))
  return seen === undefined ? initial : [seen.value]
}

function expected(initial: readonly number[], why: Era['why']): string {
  const values = initial.map((value) => (value === zero ? 'zeroes' : String(value))).join(' or ')
  return `${why === 'power-loss' ? 'what may have survived is' : 'it began with'} ${values}`
}
