// A disk host is killed in the middle of the copying: the kernel is not to notice.

import t from 'tap'
import { FileSystem, type Kind } from './file-system.js'
import { guestImage } from './guest-image.js'
import { aGuest } from './guest.js'
import { Initiator } from './initiator.js'
import { diskHostKilled } from './killed.js'
import { anAnkoleWithPortal } from './portal.js'
import { Tree } from './tree.js'

const { image, lacks } = guestImage()

const kinds: readonly Kind[] = ['ext4', 'xfs']

t.test('a disk host is killed while a Linux kernel copies onto a volume', { skip: lacks }, async (t) => {
  const [guest, ankole] = await Promise.all([aGuest(t, image!), anAnkoleWithPortal(t)])
  const initiator = await Initiator.start(guest)
  const tree = await Tree.make(guest)

  for (const kind of kinds) {
    await t.test(`${kind}: every file is whole, and the three replicas are equal`, async (t) => {
      const { volume, iqn } = await ankole.serve(kind, '320MiB')
      await initiator.discover(ankole.portal)
      const target = initiator.target(ankole.portal, iqn)
      const fs = new FileSystem(guest, kind, await target.login())
      await fs.make()
      await fs.mount()
      const copies = [1, 2].map((n) => `${fs.copy}-${n}`)
      await diskHostKilled(t, volume, () => guest.start(copies.map((copy) => tree.copying(copy)).join(' && ')))
      await fs.unmount()
      await fs.check()
      await fs.mount()
      for (const copy of copies) await tree.check(copy)
      await fs.unmount()
      await target.logout()
      t.strictSame(await guest.complaints(), [], 'the kernel saw no error')
      await volume.endsEqual(t)
    })
  }
})
