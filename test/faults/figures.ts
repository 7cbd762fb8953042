// What a test measured: printed by each, and once more by run.mjs at the end, which reads it from a file.

import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { figures } from './options.js'

export interface Figure {
  /** What happened. */
  event: string
  what: string
  value: number
  unit: string
}

const directory = fileURLToPath(new URL('../../../build/faults', import.meta.url))

/** `limit` holds only where the figures were asked for: a machine that is busy with other things cannot keep it. */
export function noteFigure(t: Test, figure: Figure, limit?: number): void {
  const { event, what, unit } = figure
  const value = unit === 'ms' ? Math.round(figure.value) : Number(figure.value.toFixed(2))
  const promised = limit === undefined ? '' : `, promised ${Number(limit.toFixed(2))} ${unit}`
  const line = `${event}: ${what}: ${value} ${unit}${promised}`
  t.comment(line)
  mkdirSync(directory, { recursive: true })
  appendFileSync(join(directory, 'figures.txt'), `${line}\n`)
  if (figures && limit !== undefined) t.ok(figure.value <= limit, line)
}
