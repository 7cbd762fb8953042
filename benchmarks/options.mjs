// What the command line asks for.
import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { cacheStates, cells, idleCell } from './cells.mjs'
import { systems } from './systems/index.mjs'

const systemNames = Object.keys(systems)

const help = `Usage: npm run bench -- [options]

  --quick             small and short, one round: to see that all works, not to quote
  --cells LIST        comma-separated; * stands for anything: 'randread-*', '*-qd1@warm', idle
  --systems LIST      of ${systemNames.join(', ')} (default: all)
  --rounds N          times each cell is measured on each system (default: 3)
  --seconds N         how long each time (default: 4)
  --size SIZE         of the volume and the files, such as 512MiB or 2GiB (default: 512MiB)
  --io-backend WHICH  of Ankole: auto, uring or epoll (default: auto)
  --fio PROGRAM       a fio with the engines libiscsi, nbd and libaio (default: built from Debian's source package, into
                      build/fio, where a system with iSCSI is in the run; the installed one otherwise)
  --profile           perf on every system's processes: what took most of each cell; not for quoting
  --directory DIR     where everything is put, and removed after (default: the system's temporary directory)
  --list              print the cells and stop

Cells: ${cells.map(({ name }) => name).join(', ')}, each @${cacheStates.join(' and @')}; ${idleCell}`

const quick = { rounds: 1, seconds: 1, size: '128MiB', cells: 'rand*-qd1,rand*-qd32,*-1m-qd4,idle' }
const usual = { rounds: 3, seconds: 4, size: '512MiB', cells: '*' }

/** Null where there is nothing to run. Throws with a message for people. */
export function readOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: 'boolean', default: false },
      cells: { type: 'string' },
      systems: { type: 'string', default: systemNames.join(',') },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      size: { type: 'string' },
      'io-backend': { type: 'string', default: 'auto' },
      fio: { type: 'string' },
      profile: { type: 'boolean', default: false },
      directory: { type: 'string', default: tmpdir() },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    console.log(help)
    return null
  }
  const preset = values.quick ? quick : usual
  const wanted = selectCells(values.cells ?? preset.cells)
  if (values.list) {
    for (const { cell, cache } of wanted.cells) console.log(`${cell.name}@${cache}`)
    if (wanted.idle) console.log(idleCell)
    return null
  }
  return {
    quick: values.quick,
    ...wanted,
    systems: selectSystems(values.systems),
    rounds: parseNumber('--rounds', values.rounds, preset.rounds, 100),
    seconds: parseNumber('--seconds', values.seconds, preset.seconds, 600),
    sizeBytes: parseSize(values.size ?? preset.size),
    ioBackend: oneOf('--io-backend', values['io-backend'], ['auto', 'uring', 'epoll']),
    fio: values.fio,
    profile: values.profile,
    directory: values.directory,
  }
}

function selectCells(list) {
  const all = cacheStates.flatMap((cache) => cells.map((cell) => ({ cell, cache })))
  const chosen = new Set()
  let idle = false
  for (const pattern of list.split(',').filter((word) => word !== '')) {
    const regExp = globToRegExp(pattern)
    const found = all.filter(({ cell, cache }) => regExp.test(cell.name) || regExp.test(`${cell.name}@${cache}`))
    for (const one of found) chosen.add(one)
    const isIdle = regExp.test(idleCell)
    idle ||= isIdle
    if (found.length === 0 && !isIdle) throw new Error(`--cells: nothing is named ${pattern}; see --list`)
  }
  return { cells: all.filter((one) => chosen.has(one)), idle }
}

function globToRegExp(glob) {
  return new RegExp(`^${glob.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`)
}

function selectSystems(list) {
  const names = list.split(',')
  for (const name of names) oneOf('--systems', name, systemNames)
  return systemNames.filter((name) => names.includes(name))
}

function oneOf(option, value, allowed) {
  if (!allowed.includes(value)) throw new Error(`${option}: use one of ${allowed.join(', ')}, not ${value}`)
  return value
}

function parseNumber(option, text, preset, max) {
  if (text === undefined) return preset
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1 || number > max)
    throw new Error(`${option}: use 1 to ${max}, not ${text}`)
  return number
}

function parseSize(text) {
  const match = /^(\d+)(MiB|GiB)$/.exec(text)
  const bytes = Number(match?.[1]) * (match?.[2] === 'GiB' ? 1 << 30 : 1 << 20)
  if (!(bytes >= 64 << 20)) throw new Error(`--size: use 64MiB or more, such as 512MiB or 2GiB, not ${text}`)
  return bytes
}
