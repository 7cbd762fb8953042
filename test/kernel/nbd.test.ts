// The kernel's NBD client, on a volume of three replicas.

import t from 'tap'
import { FileSystem } from './file-system.js'
import { guestImage } from './guest-image.js'
import { aGuest } from './guest.js'
import { anAnkoleWithPortal } from './portal.js'
import { Tree } from './tree.js'
import { trimShrinks } from './trim.js'

const { image, lacks } = guestImage()

t.test('a Linux kernel uses a volume over NBD', { skip: lacks }, async (t) => {
  const [guest, ankole] = await Promise.all([aGuest(t, image!), anAnkoleWithPortal(t)])
  const volume = await ankole.createVolume('nbd', '128MiB')
  const { hostname, port, pathname } = new URL(volume.uri)
  const device = '/dev/nbd0'
  const connecting = (name: string): string => `nbd-client -N ${name} ${hostname} ${port} ${device}`
  const connect = connecting(pathname.slice(1))
  const disconnect = `nbd-client -d ${device}`
  const tree = await Tree.make(guest)

  await t.test('an export that is not there is refused', async (t) => {
    const { code, output } = await guest.run(connecting('elsewhere'))
    t.not(code, 0)
    t.match(output, /no volume, and no snapshot that can be read, of that name here/)
  })

  const fs = new FileSystem(guest, 'ext4', device)
  await t.test('ext4 on it holds what is copied onto it', async (t) => {
    await guest.do(connect)
    t.equal(Number(await guest.do('cat /sys/block/nbd0/size')) * 512, 128 << 20, 'it has the size of the volume')
    await fs.make()
    await fs.mount()
    await guest.do(tree.copying(fs.copy))
    await fs.fio()
    await fs.unmount()
    await fs.check()
    await fs.mount()
    await tree.check(fs.copy)
  })

  await t.test('what is trimmed is given back by every replica', async (t) => {
    await fs.removeFio()
    await trimShrinks(t, fs, volume, 6 << 20)
  })

  await t.test('after a disconnection and a new connection all is there', async () => {
    await fs.unmount()
    await guest.do(disconnect)
    await guest.do(connect)
    await fs.check()
    await fs.mount()
    await tree.check(fs.copy)
    await fs.unmount()
    await guest.do(disconnect)
  })

  t.strictSame(await guest.complaints(), [], 'the kernel saw no error')
  await volume.endsEqual(t)
})
