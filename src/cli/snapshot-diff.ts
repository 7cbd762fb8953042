// `ankole snapshot diff`: what changed between two snapshots. It may be long: it is printed as it comes.
import { once } from 'node:events'
import type { Command } from 'commander'
import type { ChangesView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { aCommand, volumePath, type Shared } from './command.js'

const extentsAtATime = 10_000
/** Of an offset: that of 64 TiB has 14 digits. */
const columnWidth = 14

interface DiffOptions extends Shared {
  from?: string
}

export interface DiffTotals {
  extents: number
  dataBytes: number
  zeroBytes: number
}

export function diffCommand(): Command {
  return aCommand('diff', 'List what changed between two snapshots, or what one has allocated')
    .argument('<volume>', 'it has to be attached')
    .argument('<snapshot>')
    .option('--from <snapshot>', 'what it is compared with: nothing if not given')
    .addHelpText(
      'after',
      `
Offsets and lengths are bytes, of whole blocks of 4096. "data" was written, "zero" was trimmed or zeroed: it takes up no
space, and reads as zeros. Every block that differs is listed; one that was written with what it held is listed, too.

Examples:
  ankole snapshot diff data monday
  ankole snapshot diff data tuesday --from monday --json`,
    )
    .action(async (volume: string, snapshot: string, _: object, command: Command) => {
      const { url, json, from } = command.optsWithGlobals<DiffOptions>()
      const pages = changes(new Client(url), volume, snapshot, from)
      for await (const text of json ? asJson(pages) : asTable(pages)) {
        if (!process.stdout.write(text)) await once(process.stdout, 'drain')
      }
    })
}

/** Page by page, until all is told. */
async function* changes(client: Client, volume: string, snapshot: string, from: string | undefined) {
  const path = `${volumePath(volume)}/snapshots/${encodeURIComponent(snapshot)}/changes`
  for (let offset: number | null = 0; offset !== null;) {
    const query = new URLSearchParams({ offset: String(offset), limit: String(extentsAtATime) })
    if (from !== undefined) query.set('from', from)
    const page: ChangesView = await client.get<ChangesView>(`${path}?${query.toString()}`)
    yield page
    offset = page.nextOffset
  }
}

/** A table for people, and what it comes to. */
export async function* asTable(pages: AsyncIterable<ChangesView>): AsyncGenerator<string, void> {
  let first: ChangesView | undefined
  const totals = noTotals()
  for await (const page of pages) {
    if (first === undefined) yield row('OFFSET', 'LENGTH', 'WHAT')
    first ??= page
    add(totals, page)
    yield page.extents.map(({ offset, length, kind }) => row(String(offset), String(length), kind)).join('')
  }
  if (first !== undefined) yield `${summary(first, totals)}\n`
}

function row(offset: string, length: string, what: string): string {
  return `${offset.padStart(columnWidth)}  ${length.padStart(columnWidth)}  ${what}\n`
}

function summary({ snapshot, from, superset }: ChangesView, { extents, dataBytes, zeroBytes }: DiffTotals): string {
  const sums = `${formatBytes(dataBytes)} of data and ${formatBytes(zeroBytes)} of zeros`
  const parts = extents === 1 ? '1 extent' : `${extents} extents`
  if (from === null) return `Snapshot ${snapshot} has ${sums} in ${parts}.`
  const note = superset ? ' Blocks may be among them that were written with what they held.' : ''
  return `From ${from} to ${snapshot}: ${sums} in ${parts}.${note}`
}

/** One document, however long. */
export async function* asJson(pages: AsyncIterable<ChangesView>): AsyncGenerator<string, void> {
  const totals = noTotals()
  let separator = ''
  for await (const page of pages) {
    const { volume, snapshot, from, sizeBytes, fromSizeBytes, superset, extents } = page
    if (separator === '') {
      const head = JSON.stringify({ volume, snapshot, from, sizeBytes, fromSizeBytes, superset })
      yield `${head.slice(0, -1)},"extents":[`
      separator = '\n'
    }
    add(totals, page)
    for (const extent of extents) {
      yield separator + JSON.stringify(extent)
      separator = ',\n'
    }
  }
  if (separator !== '') yield `],"totals":${JSON.stringify(totals)}}\n`
}

function noTotals(): DiffTotals {
  return { extents: 0, dataBytes: 0, zeroBytes: 0 }
}

/** One that goes on over the end of a page counts twice, as it is listed. */
function add(totals: DiffTotals, { extents }: ChangesView): void {
  totals.extents += extents.length
  for (const { length, kind } of extents) totals[kind === 'data' ? 'dataBytes' : 'zeroBytes'] += length
}
