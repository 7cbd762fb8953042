// npm run bench:snapshots: how long a snapshot holds up I/O, and what many layers cost. README.md says how.
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { fill, measure } from './fio.mjs'
import { median } from './statistics.mjs'
import { Ankole } from './systems/ankole.mjs'

const help = `Usage: npm run bench:snapshots -- [options]

  --pauses N        snapshots that are taken under random writes at queue depth 32 (default: 100)
  --layers LIST     how many layers the reads go through, beside a volume of one (default: 100,1000)
  --size SIZE       of each volume, in MiB (default: 512)
  --rounds N        times each read is measured, in turn with the volume of one layer (default: 5)
  --seconds N       how long each time (default: 3)
  --io-backend B    auto, uring or epoll (default: auto)
  --directory DIR   where everything is put, and removed after (default: the system's temporary directory)`

const cells = [1, 32].map((queueDepth) => ({ pattern: 'randread', blockSize: '4k', queueDepth, direction: 'read' }))

async function main() {
  const { values } = parseArgs({
    options: {
      pauses: { type: 'string', default: '100' },
      layers: { type: 'string', default: '100,1000' },
      size: { type: 'string', default: '512' },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '3' },
      'io-backend': { type: 'string', default: 'auto' },
      directory: { type: 'string', default: tmpdir() },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    console.log(help)
    return
  }
  const directory = mkdtempSync(join(values.directory, 'ankole-bench-'))
  const options = {
    directory,
    fio: 'fio',
    seed: 1,
    ioBackend: values['io-backend'],
    sizeBytes: numberOf('--size', values.size) * 2 ** 20,
    seconds: numberOf('--seconds', values.seconds),
    rounds: numberOf('--rounds', values.rounds),
  }
  try {
    await measurePauses(numberOf('--pauses', values.pauses), options)
    await measureLayers(
      values.layers.split(',').map((text) => numberOf('--layers', text)),
      options,
    )
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function numberOf(option, text) {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new Error(`${option}: use a whole number above 0, not ${text}`)
  return number
}

/** An Ankole of its own with a volume that is written from front to back. */
async function aVolume(name, options) {
  const home = join(options.directory, name)
  mkdirSync(home)
  const ankole = await Ankole.up(home, options)
  try {
    const { nbd } = await ankole.createVolume('bench', options.sizeBytes)
    const target = ['--ioengine=nbd', `--uri=${nbd.uri}`]
    await fill(target, options)
    return { home, ankole, target }
  } catch (error) {
    await ankole.stop()
    throw error
  }
}

async function snapshot(ankole, name) {
  const response = await globalThis.fetch(`${ankole.url}/v1/volumes/bench/snapshots`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name }),
  })
  const document = await response.json()
  if (!response.ok) throw new Error(`snapshot ${name}: ${document.error?.message ?? response.status}`)
  return document
}

async function measurePauses(count, options) {
  const { ankole, target } = await aVolume('pauses', options)
  const load = ['--rw=randwrite', '--bs=4k', '--iodepth=32', `--size=${options.sizeBytes}`, '--time_based']
  const writer = spawn('fio', ['--name=load', '--thread', ...target, ...load, '--runtime=3600'], { stdio: 'ignore' })
  const pauses = []
  try {
    for (let i = 1; i <= count; ++i) {
      pauses.push((await snapshot(ankole, `p-${i}`)).pauseMs)
      if (writer.exitCode !== null) throw new Error('the load ended: a write failed')
    }
  } finally {
    writer.kill('SIGINT')
    await ankole.stop()
  }
  pauses.sort((one, other) => one - other)
  const at = (share) => pauses[Math.min(count - 1, Math.ceil(count * share) - 1)].toFixed(2)
  console.log(
    `${count} snapshots under random writes of 4 KiB at queue depth 32: I/O was held up for ${at(0.5)} ms (median), ` +
      `${at(0.99)} ms (99th percentile), ${at(1)} ms (longest)`,
  )
}

async function measureLayers(counts, options) {
  const flat = await aVolume('flat', options)
  const deep = await aVolume('deep', options)
  try {
    let layers = 1
    for (const count of counts.sort((one, other) => one - other)) {
      // As many blocks in each layer as there would be if all were spread over all of them.
      const bytes = Math.max(1, Math.round(options.sizeBytes / 4096 / count)) * 4096
      for (; layers < count; ++layers) {
        await snapshot(deep.ankole, `s-${layers}`)
        await write(deep.target, bytes, layers, options)
      }
      await compareReads(count, flat, deep, options)
    }
    for (const [one, count] of [
      [flat, 1],
      [deep, layers],
    ]) {
      await one.ankole.stop()
      const started = performance.now()
      one.ankole = await Ankole.up(one.home, options)
      await one.ankole.attach('bench')
      console.log(
        `${count === 1 ? '1 layer' : `${count} layers`}: attached ${((performance.now() - started) / 1000).toFixed(1)} s after the start`,
      )
    }
  } finally {
    await Promise.all([flat.ankole.stop(), deep.ankole.stop()])
  }
}

async function write(target, bytes, seed, { sizeBytes }) {
  const args = ['--rw=randwrite', '--bs=4k', '--iodepth=32', `--size=${sizeBytes}`, `--io_size=${bytes}`]
  const child = spawn('fio', ['--name=part', '--thread', ...target, ...args, `--randseed=${seed}`, '--norandommap'], {
    stdio: 'ignore',
  })
  const code = await new Promise((resolve) => child.once('exit', resolve))
  if (code !== 0) throw new Error('a layer could not be written')
}

async function compareReads(count, flat, deep, options) {
  for (const cell of cells) {
    const ratios = []
    for (let round = 0; round < options.rounds; ++round) {
      const one = await measure(flat.target, cell, options)
      const many = await measure(deep.target, cell, options)
      ratios.push(one.iops / many.iops)
    }
    const cost = [median(ratios), Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(2))
    console.log(
      `${count} layers, random reads of 4 KiB at queue depth ${cell.queueDepth}: ${cost[0]} times what they take with one ` +
        `(${cost[1]} to ${cost[2]})`,
    )
  }
}

await main()
