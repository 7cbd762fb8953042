// A volume of a running Ankole, with the files that its replicas are.

import { closeSync, fstatSync, openSync, readSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { AttachmentView, VolumeView } from '../../src/api/index.js'
import { sleep, type LocalAnkole } from './ankole.js'

const writtenWaitMs = 60_000

export class Volume {
  uri = ''
  iscsi = { portal: '', iqn: '', lun: 0 }

  constructor(
    readonly ankole: LocalAnkole,
    readonly name: string,
  ) {}

  async attach(): Promise<void> {
    const { nbd, iscsi } = await this.ankole.cli<AttachmentView>('volume', 'attach', this.name)
    this.uri = nbd.uri
    this.iscsi = iscsi
  }

  /** As libiscsi takes it: by way of the well-known portal, which sends the initiator on to the engine. */
  get iscsiUrl(): string {
    const { portal, iqn, lun } = this.iscsi
    return `iscsi://${portal}/${iqn}/${lun}`
  }

  /** Clean: every file of every replica is as it stays. */
  async detach(): Promise<void> {
    await this.ankole.cli('volume', 'detach', this.name)
  }

  async delete(): Promise<void> {
    await this.ankole.cli('volume', 'delete', this.name, '--force')
  }

  view(): Promise<VolumeView> {
    return this.ankole.until(this.name, 'there', () => true)
  }

  /** All replicas are members, and it is served. */
  healthy(): Promise<VolumeView> {
    return this.ankole.until(
      this.name,
      'healthy',
      ({ state, robustness, replicas }) =>
        state === 'attached' && robustness === 'healthy' && replicas.every((replica) => replica.state === 'member'),
    )
  }

  /** The head layers, raw images of the volume, in the order of the disks. */
  async headFiles(disks?: readonly string[]): Promise<string[]> {
    const { replicas } = await this.view()
    const wanted = replicas.filter(({ disk }) => disks?.includes(disk) ?? true)
    return wanted.sort((one, other) => one.disk.localeCompare(other.disk)).map(({ directory }) => headFile(directory))
  }

  /** For use while a client writes: resolves when the replicas take up so much more than at the call. */
  async watchWritten(): Promise<(bytes: number) => Promise<void>> {
    const [file] = await this.headFiles()
    const allocated = (): number => statSync(file!).blocks * 512
    const before = allocated()
    return async (bytes) => {
      const deadline = performance.now() + writtenWaitMs
      while (allocated() < before + bytes) {
        if (performance.now() > deadline) throw new Error(`${this.name}: ${bytes} bytes are not written in time`)
        await sleep(1)
      }
    }
  }

  /** Detaches, compares all replicas byte by byte, and each with `expected` where that is given; then deletes. */
  async endsEqual(t: Test, expected?: string): Promise<void> {
    await this.healthy()
    await this.detach()
    const [first, ...others] = await this.headFiles()
    t.equal(others.length, 2, 'three replicas')
    for (const other of others) t.equal(firstDifference(first!, other), undefined, 'the replicas are equal')
    if (expected !== undefined) t.equal(firstDifference(first!, expected), undefined, 'they hold what was written')
    await this.delete()
  }
}

function headFile(directory: string): string {
  const [head, ...more] = readdirSync(directory).filter((name) => /^volume-head-\d+\.img$/.test(name))
  if (head === undefined || more.length > 0) throw new Error(`${directory}: not one head`)
  return join(directory, head)
}

/** Where two files differ first, to the chunk; undefined if nowhere. */
export function firstDifference(one: string, other: string): number | undefined {
  const chunkBytes = 4 << 20
  const files = [openSync(one, 'r'), openSync(other, 'r')] as const
  try {
    const [oneBytes, otherBytes] = [fstatSync(files[0]).size, fstatSync(files[1]).size]
    if (oneBytes !== otherBytes) return Math.min(oneBytes, otherBytes)
    const chunks = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)] as const
    for (let offset = 0; offset < oneBytes; offset += chunkBytes) {
      const [oneRead, otherRead] = [
        readSync(files[0], chunks[0], 0, chunkBytes, offset),
        readSync(files[1], chunks[1], 0, chunkBytes, offset),
      ]
      if (oneRead !== otherRead || !chunks[0].subarray(0, oneRead).equals(chunks[1].subarray(0, otherRead)))
        return offset
    }
    return undefined
  } finally {
    for (const file of files) closeSync(file)
  }
}
