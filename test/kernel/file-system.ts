// A file system in the guest, on a whole device.

import type { Guest } from './guest.js'

export type Kind = 'ext4' | 'xfs'

const make = { ext4: 'mkfs.ext4 -q -F', xfs: 'mkfs.xfs -q -f' }
/** Changes nothing, and fails where anything is to be repaired. */
const check = { ext4: 'e2fsck -f -n', xfs: 'xfs_repair -n' }

export class FileSystem {
  readonly directory: string
  /** Where a tree is copied to. */
  readonly copy: string

  constructor(
    readonly guest: Guest,
    readonly kind: Kind,
    readonly device: string,
  ) {
    this.directory = `/mnt/${kind}`
    this.copy = `${this.directory}/copy`
  }

  async make(): Promise<void> {
    await this.guest.do(`${make[this.kind]} ${this.device}`)
  }

  async mount(): Promise<void> {
    await this.guest.do(`mkdir -p ${this.directory} && mount -t ${this.kind} ${this.device} ${this.directory}`)
  }

  async unmount(): Promise<void> {
    await this.guest.do(`umount ${this.directory}`)
  }

  /** Resolves if it is clean. For when it is not mounted. */
  async check(): Promise<void> {
    await this.guest.do(`${check[this.kind]} ${this.device}`)
  }

  /** Gives back to the device what it does not use. */
  async trim(): Promise<void> {
    await this.guest.do(`fstrim ${this.directory}`)
  }

  /** Writes and reads at random places of a file, past the page cache; each block read has the checksum it got. */
  async fio(): Promise<void> {
    const job = ['--name=verify', `--directory=${this.directory}`, '--size=8M', '--rw=randrw', '--bsrange=4k-64k']
    const how = ['--ioengine=libaio', '--iodepth=16', '--direct=1', '--fsync=64']
    const verify = ['--verify=crc32c', '--verify_fatal=1', '--randrepeat=0', '--output-format=terse']
    await this.guest.do(['cd /tmp && fio', ...job, ...how, ...verify].join(' '))
  }

  async removeFio(): Promise<void> {
    await this.guest.do(`rm ${this.directory}/verify.0.0`)
  }
}
