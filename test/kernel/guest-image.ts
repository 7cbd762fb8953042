// The guest's kernel, and the file system in memory that it starts with: a few programs, the libraries that they name,
// the modules that are tested and what those need.

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { environment } from '../conformance/tools.js'
import { cache, complete, packagesLack, projectRoot, roots } from './packages.js'

export interface GuestImage {
  kernel: string
  initramfs: string
}

const programs = [...['iscsid', 'iscsiadm', 'nbd-client', 'fio'], ...['mkfs.ext4', 'e2fsck', 'mkfs.xfs', 'xfs_repair']]

const modules = [
  ...['virtio_pci', 'virtio_net', 'virtio_console'],
  ...['crc32c_generic', 'crc32c_intel', 'ext4', 'xfs'],
  ...['sd_mod', 'iscsi_tcp', 'nbd'],
]

const binaries = ['usr/sbin', 'sbin', 'usr/bin', 'bin']
const libraries = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu']

export const initiatorName = 'iqn.2004-10.com.example:guest'

const files = {
  // iscsid asks who is at the other end of its socket.
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
  'etc/iscsi/initiatorname.iscsi': `InitiatorName=${initiatorName}\n`,
}

/** What a guest is booted from, made where it is not there yet; or what is missing for it, for tap's `skip`. */
export function guestImage(): { image: GuestImage; lacks: false } | { image?: never; lacks: string } {
  const lacks = packagesLack()
  if (lacks !== false) return { lacks }
  const version = kernelVersion()
  const image = { kernel: find([`boot/vmlinuz-${version}`]), initramfs: join(cache, 'initramfs.cpio') }
  const sources = [fileURLToPath(import.meta.url), init, image.kernel, complete]
  if (!isNewer(image.initramfs, sources)) makeInitramfs(image.initramfs, version)
  return { image, lacks: false }
}

const init = join(projectRoot, 'test', 'kernel', 'guest', 'init')

function isNewer(file: string, sources: readonly string[]): boolean {
  return existsSync(file) && sources.every((source) => statSync(source).mtimeMs < statSync(file).mtimeMs)
}

/** Of the plain flavour: the others lack drivers, or differ in how they schedule. */
function kernelVersion(): string {
  const found = roots.flatMap((root) => (existsSync(join(root, 'boot')) ? readdirSync(join(root, 'boot')) : []))
  const version = found.map((name) => /^vmlinuz-([\d.]+-\d+-amd64)$/.exec(name)?.[1]).find((match) => match)
  if (version === undefined) throw new Error(`no kernel in ${roots.join(' or ')}`)
  return version
}

function find(paths: readonly string[]): string {
  const found = roots.flatMap((root) => paths.map((path) => join(root, path))).find((file) => existsSync(file))
  if (found === undefined) throw new Error(`not found in ${roots.join(' or ')}: ${paths.join(', ')}`)
  return found
}

function makeInitramfs(initramfs: string, version: string): void {
  const stage = join(cache, 'initramfs')
  rmSync(stage, { recursive: true, force: true })
  for (const directory of ['bin', 'sbin', 'lib', 'lib64', 'modules', 'etc/iscsi', 'proc', 'sys', 'dev', 'run'])
    mkdirSync(join(stage, directory), { recursive: true })
  copyFileSync(init, join(stage, 'init'))
  chmodSync(join(stage, 'init'), 0o755)
  const busybox = find(['bin/busybox', 'usr/bin/busybox'])
  copyFileSync(busybox, join(stage, 'bin', 'busybox'))
  symlinkSync('busybox', join(stage, 'bin', 'sh'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(stage, name), text)
  copyFileSync(find(['etc/iscsi/iscsid.conf']), join(stage, 'etc/iscsi/iscsid.conf'))
  const executables = programs.map((name) => find(binaries.map((directory) => join(directory, name))))
  for (const executable of executables) copyFileSync(executable, join(stage, 'sbin', basename(executable)))
  mkdirSync(join(stage, 'lib', 'x86_64-linux-gnu'))
  for (const library of librariesOf(executables))
    copyFileSync(library, join(stage, 'lib', 'x86_64-linux-gnu', basename(library)))
  copyFileSync(find(['lib64/ld-linux-x86-64.so.2']), join(stage, 'lib64', 'ld-linux-x86-64.so.2'))
  for (const [n, module] of modulesInOrder(version).entries())
    copyFileSync(module, join(stage, 'modules', `${String(n).padStart(2, '0')}-${basename(module)}`))
  const script = `find . | "${busybox}" cpio -o -H newc -R 0:0 >"${initramfs}.new"`
  const { status, stderr } = spawnSync('sh', ['-e', '-c', script], { cwd: stage, encoding: 'utf8' })
  if (status !== 0) throw new Error(`cpio: ${stderr}`)
  renameSync(`${initramfs}.new`, initramfs)
  rmSync(stage, { recursive: true })
}

/** All that the loader would load, and what iscsid opens by name: a thread that ends needs libgcc_s. */
function librariesOf(executables: readonly string[]): string[] {
  const directories = roots.flatMap((root) => libraries.map((directory) => join(root, directory)))
  const env = { ...environment, LD_LIBRARY_PATH: directories.join(':') }
  const { stdout, stderr, status } = spawnSync('ldd', executables, { env, encoding: 'utf8' })
  const missing = stdout.match(/^.*not found.*$/gm)
  if (status !== 0 || missing !== null) throw new Error(`ldd: ${missing?.join() ?? stderr}`)
  const found = [...stdout.matchAll(/^\s+\S+ => (\/\S+)/gm)].map((match) => match[1]!)
  return [...new Set([...found, find(libraries.map((directory) => join(directory, 'libgcc_s.so.1')))])]
}

/** Each after all that it depends on, as modprobe would load them. */
function modulesInOrder(version: string): string[] {
  const directory = find([`lib/modules/${version}/kernel`, `usr/lib/modules/${version}/kernel`])
  const byName = new Map(
    readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ko'))
      .map((path) => [moduleName(basename(path, '.ko')), join(directory, path)]),
  )
  const ordered = new Set<string>()
  const add = (name: string): void => {
    const file = byName.get(moduleName(name))
    if (file === undefined) throw new Error(`no module is named ${name} in ${directory}`)
    if (ordered.has(file)) return
    for (const needed of dependencies(file)) add(needed)
    ordered.add(file)
  }
  for (const name of modules) add(name)
  return [...ordered]
}

/** The two ways to write it mean the same. */
function moduleName(name: string): string {
  return name.replaceAll('-', '_')
}

/** A module has a section of texts «NAME=VALUE», each ended by a zero byte. */
function dependencies(file: string): string[] {
  const text = readFileSync(file, 'latin1')
  const depends = /\0depends=([^\0]*)\0/.exec(text)
  if (!depends) throw new Error(`${file}: does not say what it depends on`)
  return depends[1]!.split(',').filter((name) => name !== '')
}
