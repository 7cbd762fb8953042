// `ankole volume import` and `export` that are interrupted, killed, or find that somebody writes: nothing is left that looks
// like more than it is.
import { spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { lacksQemuImg } from '../unit/image/builders.js'
import { aDirectory, pattern } from './builders.js'
import { aLongImage, digest, MiB, show, volumes } from './images.js'
import { clientOf, until, up } from './up.js'

/** Its first line of JSON: copying is under way. */
async function underWay(command: ChildProcess): Promise<void> {
  let printed = ''
  command.stdout?.on('data', (data: Buffer) => (printed += data.toString()))
  const isUnderWay = (): boolean => printed.includes('"progress"')
  await until('progress', () => Promise.resolve(isUnderWay() || command.exitCode !== null))
  if (!isUnderWay()) throw new Error('the command has ended before it copied anything')
}

async function ended(command: ChildProcess): Promise<{ exitCode: number | null; stderr: string }> {
  const said = text(command.stderr!)
  const [exitCode] = (await once(command, 'exit')) as [number | null]
  return { exitCode, stderr: await said }
}

t.test('imports and exports that do not come to their end', async (t) => {
  const directory = t.testdir()
  const ankole = await up(t, join(directory, 'data'), '--no-demo', '--disks', '1')

  await t.test('an attached volume stays attached, and what is written meanwhile is noticed', async (t) => {
    const long = aLongImage(join(directory, 'long.raw'))
    t.match(await ankole.run('volume', 'import', long, 'long', '--replicas', '1'), { exitCode: 0 })
    const client = await clientOf(await ankole.json('volume', 'attach', 'long'))
    const image = join(directory, 'long.out')
    const quiet = await ankole.run('volume', 'export', 'long', image)
    t.match(quiet, { exitCode: 0, stdout: /Note: 1 client was connected: what they had not written yet/ })
    t.equal(digest(image), digest(join(directory, 'long.raw')))

    const command = ankole.start('volume', 'export', 'long', join(directory, 'changed'), '--json')
    await underWay(command)
    await client.write(8 * MiB, pattern(99, 4096))
    const { exitCode, stderr } = await ended(command)
    t.equal(exitCode, 1)
    t.match(JSON.parse(stderr), { error: { code: 'volume-changed', message: /long was written to while/ } })
    t.notOk(
      readdirSync(directory).some((name) => name.includes('changed')),
      'nothing is left',
    )

    const live = ankole.start('volume', 'export', 'long', join(directory, 'live'), '--live', '--json')
    await underWay(live)
    await client.write(9 * MiB, pattern(98, 4096))
    t.match(await ended(live), { exitCode: 0 })
    t.equal(statSync(join(directory, 'live')).size, 128 * MiB)
    t.match(await show(ankole, 'long'), { state: 'attached', transfer: null })
    client.close()
    await ankole.json('volume', 'detach', 'long')
  })

  await t.test('what is interrupted leaves nothing', async (t) => {
    const [before, files] = [await volumes(ankole), readdirSync(directory)]
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const importing = ankole.start(
        'volume',
        'import',
        join(directory, 'long.raw'),
        'three',
        '--replicas',
        '1',
        '--json',
      )
      await underWay(importing)
      importing.kill(signal)
      const { exitCode, stderr } = await ended(importing)
      t.equal(exitCode, 1)
      t.match(JSON.parse(stderr), { error: { code: 'cancelled', message: /import of volume three was interrupted/ } })
      t.same(await volumes(ankole), before)
      for (const format of signal === 'SIGINT' && lacksQemuImg === false ? ['raw', 'qcow2'] : ['raw']) {
        const image = join(directory, `stopped.${format}`)
        const exporting = ankole.start('volume', 'export', 'long', image, '--format', format, '--json')
        await underWay(exporting)
        t.ok(readdirSync(directory).some((name) => name.endsWith('.partial')))
        exporting.kill(signal)
        t.match(await ended(exporting), { exitCode: 1, stderr: /cancelled/ })
        t.same(readdirSync(directory), files)
        t.same(await volumes(ankole), before, 'the volume is detached again')
      }
    }
  })

  await t.test('an import that was killed leaves a volume that says so, and that nobody can attach', async (t) => {
    const importing = ankole.start(
      'volume',
      'import',
      join(directory, 'long.raw'),
      'three',
      '--replicas',
      '1',
      '--json',
    )
    await underWay(importing)
    importing.kill('SIGKILL')
    await once(importing, 'exit')
    t.match(await show(ankole, 'three'), { transfer: { kind: 'import' }, message: /is being imported/, iscsi: null })
    t.match(await ankole.run('volume', 'attach', 'three'), { exitCode: 1, stderr: /\(volume-importing\)/ })
    await until('its end at the server', async () => (await ankole.run('volume', 'delete', 'three')).exitCode === 0)
    t.notOk((await volumes(ankole)).some((volume) => volume.startsWith('three')))
  })

  await t.test('a disk that is full is named, and nothing is left on it', { skip: mountsNot(t) }, async (t) => {
    const small = aSmallFileSystem(t)
    for (const format of lacksQemuImg === false ? ['raw', 'qcow2'] : ['raw']) {
      const said = await ankole.run('volume', 'export', 'long', join(small, 'image'), '--format', format)
      t.match(said, { exitCode: 1, stderr: /no space.*\(file-error\)/is })
      t.same(readdirSync(small), [])
    }
    t.match(await show(ankole, 'long'), { state: 'detached' })
  })

  t.equal((await ankole.stop()).exitCode, 0)
})

function mountsNot(t: Test): string | false {
  const at = aDirectory(t)
  const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', at]).status === 0
  if (isMounted) spawnSync('umount', [at])
  return isMounted ? false : 'no file system can be mounted here: that needs root'
}

/** Not among the files of the test: what a killed one left mounted would be in the way of the next. */
function aSmallFileSystem(t: Test): string {
  const at = aDirectory(t)
  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', at])
  t.teardown(() => spawnSync('umount', [at]))
  return at
}
