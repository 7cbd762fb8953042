import type { NodeReport } from '../agent/index.js'
import type { Logger } from './context.js'
import { diskThresholdsDefault, levelOf, usedPercent, type DiskLevel, type DiskThresholds } from './thresholds.js'

/** How full each disk was last seen. Logs where one has become full, or is not any more. */
export class DiskLevels {
  /** By node and disk. */
  readonly #levels = new Map<string, DiskLevel>()

  constructor(
    private readonly log: Logger,
    readonly thresholds: DiskThresholds = diskThresholdsDefault,
  ) {}

  /** As it was last seen, and `ok` before that. */
  of(node: string, disk: string): DiskLevel {
    return this.#levels.get(`${node}/${disk}`) ?? 'ok'
  }

  assess(reports: ReadonlyMap<string, NodeReport>): void {
    for (const [node, { disks }] of reports) {
      for (const { id, totalBytes, freeBytes } of disks) this.#assessDisk(node, id, { totalBytes, freeBytes })
    }
  }

  #assessDisk(node: string, disk: string, size: { totalBytes: number; freeBytes: number }): void {
    const before = this.of(node, disk)
    const level = levelOf(size, before, this.thresholds)
    if (level === before) return
    this.#levels.set(`${node}/${disk}`, level)
    const { warningPercent, criticalPercent } = this.thresholds
    const limit = level === 'critical' ? criticalPercent : warningPercent
    const is = { ok: 'is full no more', warning: 'is low on space', critical: 'is nearly full' }[level]
    this.log[({ ok: 'info', warning: 'warn', critical: 'error' } as const)[level]](
      { node, disk, level, ...size },
      `disk ${disk} ${is}: ${Math.floor(usedPercent(size))} % of its file system is taken, the threshold is ${limit} %`,
    )
  }
}
