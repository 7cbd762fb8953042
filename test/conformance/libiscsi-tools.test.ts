// libiscsi's tools: discovery through the well-known portal, and what the unit says of itself.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole, type LocalAnkole } from './ankole.js'
import { lacks, run, start } from './tools.js'
import type { Volume } from './volume.js'

const pages = { serial: '128', identification: '131', limits: '176', provisioning: '178' }

t.test('libiscsi', { skip: lacks('iscsi-ls', 'iscsi-inq', 'iscsi-readcapacity16') }, async (t) => {
  const ankole = await anAnkole(t)

  await t.test('iscsi-ls finds every volume, and of those that are attached the unit and its size', async (t) => {
    const [one, other] = [await ankole.createVolume('one', '64MiB'), await ankole.createVolume('other', '1GiB')]
    t.equal(one.iscsi.portal, other.iscsi.portal, 'the portal is the same')
    const found = await discover(ankole)
    t.strictSame([...found.keys()].sort(), [one.iscsi.iqn, other.iscsi.iqn].sort())
    t.match(found.get(one.iscsi.iqn), new RegExp(`Lun:${one.iscsi.lun} +Type:DIRECT_ACCESS \\(Size:6[34]M\\)`))
    t.match(
      found.get(other.iscsi.iqn),
      new RegExp(`Lun:${other.iscsi.lun} +Type:DIRECT_ACCESS \\(Size:(1023M|1G|0G)\\)`),
    )
    await one.detach()
    const list = await run('iscsi-ls', [`iscsi://${ankole.portal}`])
    for (const { iscsi } of [one, other]) t.match(list, iscsi.iqn, 'known, attached or not')
    const { stderr } = await start('iscsi-inq', [one.iscsiUrl]).ended
    t.match(stderr, /Service unavailable/, 'known, and not served')
    await one.attach()
    t.match((await discover(ankole)).get(one.iscsi.iqn), /DIRECT_ACCESS/, 'served again')
    await Promise.all([one.delete(), other.delete()])
  })

  await t.test('iscsi-inq and iscsi-readcapacity16: a thin disk with a name of its own', async (t) => {
    const volumes = [await ankole.createVolume('first', '64MiB'), await ankole.createVolume('second', '96MiB')]
    const names = new Set<string>()
    for (const [n, volume] of volumes.entries()) {
      const sizeBytes = n === 0 ? 64 << 20 : 96 << 20
      t.match(await run('iscsi-inq', [volume.iscsiUrl]), /Peripheral Device Type:DIRECT_ACCESS/)
      const capacity = await run('iscsi-readcapacity16', [volume.iscsiUrl])
      t.match(capacity, new RegExp(`Total size:${sizeBytes}$`, 'm'))
      t.match(capacity, /LBPME:1/)
      t.match(await inquire(volume, pages.provisioning), /LBPU:1/i)
      const [serial, identification] = [
        await inquire(volume, pages.serial),
        await inquire(volume, pages.identification),
      ]
      names.add(serial).add(identification)
      t.equal(await inquire(volume, pages.serial), serial, 'the same the next time')
    }
    t.equal(names.size, 4, 'each has its own serial number and identification')
    const before = await inquire(volumes[0]!, pages.identification)
    await volumes[0]!.detach()
    await volumes[0]!.attach()
    t.equal(await inquire(volumes[0]!, pages.identification), before, 'and keeps them')
    await Promise.all(volumes.map((volume) => volume.delete()))
  })

  await t.test('CHAP: without the secret nobody gets in, and mutual, nobody is let into the wrong house', async (t) => {
    const directory = aDirectory(t)
    const secretFile = (name: string, secret: string): string => {
      const file = join(directory, name)
      writeFileSync(file, secret, { mode: 0o600 })
      return file
    }
    const oneWay = ['--chap-user', 'alice', '--chap-secret-file', secretFile('one', 'secret-of-alice')]
    const back = ['--chap-mutual-user', 'house', '--chap-mutual-secret-file', secretFile('other', 'secret-of-house')]
    const [closed, mutual] = [
      await ankole.createVolume('closed', '64MiB', oneWay),
      await ankole.createVolume('mutual', '64MiB', [...oneWay, ...back]),
    ]
    const alice = 'alice%secret-of-alice@'
    const house = (secret: string): string => `?target_user=house&target_password=${secret}`
    const tries: [Volume, string, string, boolean][] = [
      [closed, '', '', false],
      [closed, 'alice%secret-of-nobody@', '', false],
      [closed, 'bob%secret-of-alice@', '', false],
      [closed, alice, '', true],
      [mutual, '', '', false],
      [mutual, 'alice%secret-of-nobody@', house('secret-of-house'), false],
      [mutual, alice, house('secret-of-nobody'), false],
      [mutual, alice, house('secret-of-house'), true],
    ]
    for (const [volume, credentials, query, isWelcome] of tries) {
      const url = volume.iscsiUrl.replace('iscsi://', `iscsi://${credentials}`) + query
      const { code, signal } = await start('iscsi-inq', [url], { limitMs: 20_000 }).ended
      t.equal(code === 0, isWelcome, `${volume.name}, ${credentials}${query}: ${isWelcome ? 'welcome' : 'refused'}`)
      t.equal(signal, null, 'it was answered')
    }
    await Promise.all([closed.delete(), mutual.delete()])
  })

  await t.test('a target or a unit that is not there is refused, and the portal goes on', async (t) => {
    const volume = await ankole.createVolume('there', '64MiB')
    const { portal, iqn, lun } = volume.iscsi
    for (const url of [`iscsi://${portal}/${iqn}-not/${lun}`, `iscsi://${portal}/${iqn}/${lun + 7}`]) {
      const { code, signal } = await start('iscsi-readcapacity16', [url], { limitMs: 20_000 }).ended
      t.not(code, 0, url)
      t.equal(signal, null, 'it was answered')
    }
    t.match(await run('iscsi-inq', [volume.iscsiUrl]), /DIRECT_ACCESS/)
    await volume.delete()
  })
})

/** What is told of each target, by its name. */
async function discover(ankole: LocalAnkole): Promise<Map<string, string>> {
  const list = await run('iscsi-ls', ['-s', `iscsi://${ankole.portal}`])
  return new Map(
    list
      .split(/^Target:/m)
      .slice(1)
      .map((part) => [part.split(/\s/, 1)[0]!, part]),
  )
}

function inquire(volume: Volume, page: string): Promise<string> {
  return run('iscsi-inq', ['-e', '1', '-c', page, volume.iscsiUrl])
}
