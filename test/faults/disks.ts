// The disks of the test's machines: file systems of their own on loop devices, so that each can run full, hang, fail or lose power
// alone.

import {
  mkdirSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  openSync,
  closeSync,
  writeSync,
  rmSync,
  fsyncSync,
} from 'node:fs'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { environment } from '../conformance/tools.js'
import { run } from './network.js'

export type FileSystem = 'ext4' | 'xfs'

const programs = ['mkfs.ext4', 'mount', 'umount', 'fsfreeze', 'losetup'] as const

export function disksLack(): string | false {
  const missing = programs.filter((name) => spawnSync('which', [name], { env: environment }).status !== 0)
  if (missing.length > 0)
    return `${missing.join(', ')} not installed (Debian: apt-get install e2fsprogs mount util-linux)`
  const { status } = spawnSync('losetup', ['--find'], { env: environment })
  return status === 0 ? false : 'no loop device is to be had here'
}

/**
 * EXT4_IOC_SHUTDOWN, which is XFS_IOC_GOINGDOWN, with «no log flush»: the file system is cut off from its device at once. What was
 * not written to it by then is lost, the rest is what the next mount finds: a loss of power, as file systems' own tests make it.
 */
const shutdown = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))`

export class Disk {
  readonly #image: string
  #mounted = false
  #frozen = false

  constructor(
    readonly directory: string,
    sizeBytes: number,
    fileSystem: FileSystem,
    /** Past the page cache of the file system that the image lies on, as a disk is. Slower; for what measures rates. */
    private readonly direct = false,
  ) {
    this.#image = `${directory}.${fileSystem}`
    mkdirSync(directory, { recursive: true })
    writeFileSync(this.#image, '')
    truncateSync(this.#image, sizeBytes)
    if (fileSystem === 'ext4') run('mkfs.ext4', ['-q', '-b', '4096', '-m', '0', this.#image])
    else run('mkfs.xfs', ['-q', this.#image])
    this.mount()
  }

  get isFrozen(): boolean {
    return this.#frozen
  }

  mount(): void {
    if (this.direct) {
      const device = run('losetup', ['--find', '--show', '--direct-io=on', this.#image]).trim()
      run('mount', [device, this.directory])
      // As soon as it is unmounted.
      run('losetup', ['--detach', device])
    } else {
      run('mount', ['-o', 'loop', this.#image, this.directory])
    }
    this.#mounted = true
  }

  /** The processes that have files there must be gone. */
  unmount(): void {
    if (this.#frozen) this.thaw()
    if (!this.#mounted) return
    // A process that was killed may hold its files for a moment longer.
    for (let tries = 0; ; tries++) {
      try {
        run('umount', [this.directory])
        break
      } catch (error) {
        if (tries < 20) spawnSync('sleep', ['0.1'])
        else if (tries === 20) throw error
      }
    }
    this.#mounted = false
  }

  /** Whatever holds it. For what undoes a test. */
  discard(): void {
    if (this.#frozen) spawnSync('fsfreeze', ['--unfreeze', this.directory], { env: environment })
    if (this.#mounted) spawnSync('umount', ['--lazy', this.directory], { env: environment })
    this.#mounted = false
    rmSync(this.#image, { force: true })
  }

  /** What was not synced vanishes, and everything fails with EIO until it is mounted again. */
  losePower(): void {
    run('python3', ['-c', shutdown, this.directory])
  }

  /** Its writes do not come to an end until it is thawed. */
  freeze(): void {
    run('fsfreeze', ['--freeze', this.directory])
    this.#frozen = true
  }

  thaw(): void {
    run('fsfreeze', ['--unfreeze', this.directory])
    this.#frozen = false
  }

  /** Somebody else's file takes all but so much; whoever writes meanwhile may leave it less. */
  fill(leaveBytes: number): void {
    const { bavail, bsize } = statfsSync(this.directory)
    const file = openSync(this.#ballast, 'w')
    const chunk = Buffer.alloc(1 << 20, 1)
    try {
      for (let left = bavail * bsize - leaveBytes; left > 0; left -= chunk.length) {
        writeSync(file, chunk, 0, Math.min(left, chunk.length))
      }
      fsyncSync(file)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
    } finally {
      closeSync(file)
    }
  }

  empty(): void {
    rmSync(this.#ballast)
  }

  get #ballast(): string {
    return join(this.directory, 'ballast')
  }
}
