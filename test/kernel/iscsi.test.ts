// The kernel's iSCSI initiator, on volumes of three replicas: found and reached through the portal.

import t from 'tap'
import { theDisk } from './disk.js'
import { FileSystem, type Kind } from './file-system.js'
import { guestImage } from './guest-image.js'
import { aGuest } from './guest.js'
import { authorizationFailed, Initiator, loginFailed, type Access } from './initiator.js'
import { anAnkoleWithPortal } from './portal.js'
import { Tree } from './tree.js'
import { trimShrinks } from './trim.js'

const { image, lacks } = guestImage()

const sizeBytes = 320 << 20 // mkfs.xfs wants more than 300 MB
const chap = { user: 'guest', secret: 'secret-of-guest' }
const chapMutual = { user: 'volume', secret: 'secret-of-volume' }
const wrong = { secret: 'another-secret' }

interface Use {
  kind: Kind
  title: string
  access: Access
}

const uses: readonly Use[] = [
  { kind: 'ext4', title: 'where each proves who it is', access: { chap, chapMutual } },
  { kind: 'xfs', title: 'where the initiator proves who it is', access: { chap } },
]

t.test('a Linux kernel uses volumes over iSCSI', { skip: lacks }, async (t) => {
  const [guest, ankole] = await Promise.all([aGuest(t, image!), anAnkoleWithPortal(t)])
  const initiator = await Initiator.start(guest)
  const tree = await Tree.make(guest)
  const names = new Set<string | undefined>()

  for (const { kind, title, access } of uses) {
    await t.test(`${kind}, ${title}`, async (t) => {
      const { volume, iqn } = await ankole.serve(kind, '320MiB', access)
      const found = await initiator.discover(ankole.portal)
      t.equal(found.get(iqn), ankole.portal, 'the portal tells of it')
      const target = initiator.target(ankole.portal, iqn)

      t.equal(await target.tryLogin(), authorizationFailed, 'nobody logs in without a secret')
      await target.set({ ...access, chap: { ...chap, ...wrong } })
      t.equal(await target.tryLogin(), authorizationFailed, 'nor with another')
      if (access.chapMutual) {
        await target.set({ ...access, chapMutual: { ...chapMutual, ...wrong } })
        t.equal(await target.tryLogin(), loginFailed, 'the initiator does not take a volume that does not know its own')
      }

      await target.set(access)
      let device = await target.login()
      const { portal, persistentPortal, digests } = await target.session()
      t.equal(persistentPortal, ankole.portal)
      t.notOk(digests, 'as was asked')
      t.not(portal, ankole.portal, 'the portal sent the initiator to the engine')

      const disk = await theDisk(guest, device)
      t.match(disk, { sizeBytes, vendor: 'ANKOLE', discards: true, cache: 'write back' })
      t.match(disk.serial, /^\S+$/)
      t.match(disk.naa, /^(6[0-9a-f]{31}|[235][0-9a-f]{15})$/)
      for (const name of [disk.serial, disk.naa]) {
        t.notOk(names.has(name), 'no other disk has its serial number or its name')
        names.add(name)
      }

      let fs = new FileSystem(guest, kind, device)
      await fs.make()
      await fs.mount()
      await guest.do(tree.copying(fs.copy))
      await fs.fio()
      await fs.unmount()
      await fs.check()
      await fs.mount()
      await tree.check(fs.copy)
      await fs.removeFio()
      await trimShrinks(t, fs, volume, 6 << 20)
      await fs.unmount()
      await target.logout()

      await target.set({ ...access, digests: true })
      device = await target.login()
      t.match(await target.session(), { persistentPortal: ankole.portal, digests: true })
      t.strictSame(await theDisk(guest, device), disk, 'at the next login it is the same disk')
      fs = new FileSystem(guest, kind, device)
      await fs.check()
      await fs.mount()
      await tree.check(fs.copy)
      await fs.unmount()
      await target.logout()
      t.strictSame(await guest.complaints(), [], 'the kernel saw no error')
      await volume.endsEqual(t)
    })
  }
})
