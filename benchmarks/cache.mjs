// The page cache of the files behind a system: put into a stated state, and looked at.
import { fill, readSmall } from './fio.mjs'
import { run } from './programs.mjs'

/** Before and after a drop: what is seen as empty, and as full, in percent. */
const emptyPercentMax = 1
const fullPercentMin = 99

/**
 * Resolves with what is not as it should be, null if all is. Of a system that works past the cache (O_DIRECT) no state is asked
 * for; it is written and read all the same, so that it starts from the same data.
 */
export async function prepare(system, state, options) {
  const files = await system.files()
  await dropCache(files)
  const left = await residency(files)
  const troubles = left.percent > emptyPercentMax ? [`${left.percent} % stayed cached when the cache was dropped`] : []
  if (state === 'fill') await fill(system.target(), options)
  else for (const file of files) await readSmall(file, options)
  await settle(files)
  const there = await residency(files)
  if (there.percent < fullPercentMin && !system.bypassesCache) troubles.push(`only ${there.percent} % are cached`)
  return troubles.length > 0 ? troubles.join('; ') : null
}

/** Everything written is on the disk, so that no cell pays for the one before. */
export async function settle(files) {
  await run('sync', files)
}

/** POSIX_FADV_DONTNEED on the whole file: needs no root, and leaves everybody else's cache alone. */
async function dropCache(files) {
  await settle(files)
  for (const file of files) await run('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none'])
}

export async function residency(files) {
  const { fincore } = JSON.parse(await run('fincore', ['--json', '--bytes', '--output=RES,SIZE,FILE', ...files]))
  const each = fincore.map(({ res, size }) => ({ resident: Number(res), size: Number(size) }))
  const sum = (key) => each.reduce((total, file) => total + file[key], 0)
  return {
    percent: percent(sum('resident'), sum('size')),
    each: each.map(({ resident, size }) => percent(resident, size)),
  }
}

function percent(part, whole) {
  return Math.round((part / whole) * 1000) / 10
}
