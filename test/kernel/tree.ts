// A tree of files, made in the guest's memory, that is copied onto a device, and the checksums that it must have there.

import type { Guest } from './guest.js'

const files = 300
const fileBytesMax = 48 << 10

export class Tree {
  private constructor(
    readonly guest: Guest,
    readonly directory: string,
  ) {}

  /** Some 7 MB of what cannot be guessed: an empty file, a hole, links, and files of any length in between. */
  static async make(guest: Guest): Promise<Tree> {
    const tree = new Tree(guest, '/tmp/tree')
    await guest.do(`
      set -e
      mkdir ${tree.directory}
      cd ${tree.directory}
      n=0
      while [ $n -lt ${files} ]; do
        [ $((n % 25)) -ne 0 ] || { directory=branch-$((n / 25)); mkdir $directory; }
        head -c $((n * 7919 % ${fileBytesMax})) /dev/urandom >$directory/leaf-$n
        n=$((n + 1))
      done
      truncate -s 1M hole
      ln branch-1/leaf-30 twin
      ln -s branch-2/leaf-60 sign
      find . -type f | xargs sha256sum >/tmp/sums
      [ $(wc -l </tmp/sums) -eq ${files + 2} ]`)
    return tree
  }

  /** The script that copies it, and has it written to the device. */
  copying(to: string): string {
    return `cp -a ${this.directory} ${to} && sync`
  }

  /** Resolves if the copy is whole, as the device has it: call it after a mount. */
  async check(copy: string): Promise<void> {
    await this.guest.do(`
      cd ${copy} && sha256sum -c /tmp/sums >/tmp/checked || { grep -v ': OK$' /tmp/checked; exit 1; }
      [ "$(readlink sign)" = branch-2/leaf-60 ] && [ $(stat -c %h twin) -eq 2 ]`)
  }
}
