// Debian's packages that the guest is made of: downloaded and unpacked beside the build, never installed. So no daemon
// of theirs runs on the host, and no file of the host is touched.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { environment } from '../conformance/tools.js'

const names = ['linux-image-amd64', 'busybox-static', 'open-iscsi', 'nbd-client', 'e2fsprogs', 'xfsprogs', 'fio']

export const projectRoot = fileURLToPath(new URL('../../../', import.meta.url))

/** Kept from run to run; remove it to get the packages anew. */
export const cache = join(projectRoot, 'build', 'kernel')
const archives = join(cache, 'archives')
const unpacked = join(cache, 'root')

/** Written last; says what was unpacked. */
export const complete = join(cache, 'unpacked')
const contents = `${names.join('\n')}\n`

const limitMs = 180_000

/** Where files are looked for: what was unpacked, then the host, whose packages apt does not download again. */
export const roots = [unpacked, '/']

/** False, or what is in the way, with what to do about it. */
export function packagesLack(): string | false {
  const missing = Object.entries({ 'qemu-system-x86_64': 'qemu-system-x86', setpriv: 'util-linux' }).filter(
    ([command]) => !runs(command),
  )
  if (missing.length > 0) {
    const [commands, packages] = [missing.map(([command]) => command), missing.map(([, name]) => name)]
    return `${commands.join(' and ')} not installed (Debian: apt-get install ${packages.join(' ')})`
  }
  if (existsSync(complete) && readFileSync(complete, 'utf8') === contents) return false
  if (!runs('apt-get') || !runs('dpkg-deb')) return `no apt-get to download ${names.join(', ')} with: it takes Debian`
  return download() ?? unpack() ?? false
}

function runs(command: string): boolean {
  return spawnSync(command, ['--version'], { env: environment, stdio: 'ignore' }).status === 0
}

function download(): string | undefined {
  mkdirSync(join(archives, 'partial'), { recursive: true })
  // With what they depend on, as far as it is not installed here. No lock is needed, as nothing is installed.
  const command = ['install', '--download-only', '--reinstall', '--no-install-recommends', '--yes', '--quiet']
  const options = [`Dir::Cache::archives=${archives}`, 'Debug::NoLocking=1', 'APT::Sandbox::User=root']
  const args = [...command, ...options.flatMap((option) => ['-o', option]), ...names]
  let failure = failureOf('apt-get', args)
  if (failure === undefined) return undefined
  // The host's lists may be old, and name what is no longer there.
  if (process.getuid?.() === 0 && failureOf('apt-get', ['update', '--quiet']) === undefined)
    failure = failureOf('apt-get', args)
  if (failure === undefined) return undefined
  return `${names.join(', ')} cannot be downloaded (as root: apt-get update): ${failure}`
}

function unpack(): string | undefined {
  rmSync(unpacked, { recursive: true, force: true })
  mkdirSync(unpacked)
  for (const archive of readdirSync(archives).filter((name) => name.endsWith('.deb'))) {
    const failure = failureOf('dpkg-deb', ['--extract', join(archives, archive), unpacked])
    if (failure !== undefined) return `${archive} cannot be unpacked: ${failure}`
  }
  writeFileSync(complete, contents)
  return undefined
}

function failureOf(command: string, args: readonly string[]): string | undefined {
  const env = { ...environment, DEBIAN_FRONTEND: 'noninteractive' }
  const { status, stderr, error } = spawnSync(command, args, { env, encoding: 'utf8', timeout: limitMs })
  if (status === 0) return undefined
  return error?.message ?? stderr.trim().replaceAll(/\s*\n\s*/g, '; ')
}
