// fio with the engines that Debian's package leaves out: from Debian's source package, with libiscsi, libnbd and libaio.
//
//     node benchmarks/build-fio.mjs        prints the program's path; what is built is kept in build/fio
//
// Needs no root: apt's lists of sources are kept in build/fio as well, so that the machine's own need no deb-src.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from './programs.mjs'

const home = join(dirname(dirname(fileURLToPath(import.meta.url))), 'build', 'fio')
const program = join(home, 'fio')

/** Gone when the program is there. */
const work = join(home, 'work')
const engines = ['libiscsi', 'nbd', 'libaio']

/** Where Debian's own archive keys are: other sources that a machine may have are none of ours. */
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** By the Debian package that has them. */
const programs = { 'apt-get': 'apt', 'dpkg-source': 'dpkg-dev', cc: 'gcc', make: 'make' }
const headers = {
  'libaio-dev': ['libaio.h', 'aio'],
  'libiscsi-dev': ['iscsi/iscsi.h', 'iscsi'],
  'libnbd-dev': ['libnbd.h', 'nbd'],
}

/** What else configure finds on one machine and not on the other changes nothing that is measured, and is left out. */
const leftOut = [
  ...['rdma', 'rados', 'rbd', 'http', 'gfapi', 'pmem', 'xnvme', 'libzbc', 'tcmalloc', 'dfs', 'libnfs', 'native'],
].map((name) => `--disable-${name}`)

/** Resolves with the program's path; rejects with what is missing, for people. */
export async function builtFio() {
  if (hasEngines(program)) return program
  const missing = lacking()
  if (missing.length > 0) {
    throw new Error(`fio with libiscsi cannot be built. Missing: ${missing.join(', ')} (Debian: apt-get install them)`)
  }
  rmSync(home, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  const source = await fetchSource()
  console.error(`building fio with libiscsi in ${source}`)
  await run('./configure', ['--enable-libiscsi', '--enable-libnbd', ...leftOut], { cwd: source })
  await run('make', [`-j${availableParallelism()}`, 'fio'], { cwd: source })
  await run('cp', [join(source, 'fio'), program])
  if (!hasEngines(program)) throw new Error(`${program} was built without one of ${engines.join(', ')}`)
  rmSync(work, { recursive: true })
  return program
}

/** Of any fio: those that a run over iSCSI and NBD needs. */
export function hasEngines(fio) {
  const { status, stdout } = spawnSync(fio, ['--enghelp'], { encoding: 'utf8' })
  const known = new Set((stdout ?? '').split(/\s+/))
  return status === 0 && engines.every((engine) => known.has(engine))
}

/** Packages. */
function lacking() {
  const missing = Object.entries(programs)
    .filter(([name]) => !isOnPath(name))
    .map(([, from]) => from)
  if (missing.includes('gcc')) return [...missing, ...Object.keys(headers)]
  return [...missing, ...Object.keys(headers).filter((from) => !links(...headers[from]))]
}

function isOnPath(name) {
  return (process.env.PATH ?? '').split(':').some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function links(header, library) {
  const args = ['-x', 'c', '-', '-o', '/dev/null', `-l${library}`]
  const includes = `#include <stdint.h>\n#include <stddef.h>\n#include <sys/types.h>\n#include <${header}>`
  return spawnSync('cc', args, { input: `${includes}\nint main(void) { return 0; }\n` }).status === 0
}

/** Unpacked and patched. */
async function fetchSource() {
  const state = join(work, 'apt')
  const lists = join(state, 'sources.list')
  for (const directory of ['state/lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(state, directory), { recursive: true })
  }
  writeFileSync(lists, await sources())
  const options = [
    ...[`Dir::State=${join(state, 'state')}`, `Dir::Cache=${join(state, 'cache')}`, `Dir::Etc::SourceList=${lists}`],
    // Sandbox: as root, apt works as a user who may not write here.
    ...['Dir::Etc::SourceParts=/dev/null', 'APT::Sandbox::User=root', 'Acquire::Languages=none'],
  ].flatMap((option) => ['-o', option])
  await run('apt-get', [...options, '--quiet', 'update'], { cwd: work })
  await run('apt-get', [...options, '--quiet', 'source', 'fio'], { cwd: work })
  const found = readdirSync(work, { withFileTypes: true }).find(
    (entry) => entry.isDirectory() && /^fio-/.test(entry.name),
  )
  if (found === undefined) throw new Error(`apt-get source fio left no source in ${work}`)
  return join(work, found.name)
}

/** Lines deb-src for what the machine has of Debian's archive: the sources are those of the packages that it gets. */
async function sources() {
  const format = ['--format', '$(REPO_URI) $(RELEASE) $(COMPONENT)', 'Created-By: Packages']
  const targets = await run('apt-get', ['indextargets', ...format])
  const ours = targets.split('\n').filter((line) => /^\S*\/debian(-security)?\/? \S+ main$/.test(line))
  if (ours.length === 0) throw new Error('apt knows no archive of Debian to get the source of fio from; see --fio')
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : ''
  return [...new Set(ours)].map((line) => `deb-src ${signed}${line}\n`).join('')
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    console.log(await builtFio())
  } catch (error) {
    console.error(`build-fio: ${error.message}`)
    process.exitCode = 1
  }
}
