// The peers over iSCSI: tgtd with one plain file, no replication, by its backing stores `rdwr` and `aio`.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { run, versionOf } from '../programs.mjs'
import { iscsiTarget } from './iscsi.mjs'
import { plainFile } from './plain-file.mjs'
import { connectable, freePort } from './ports.mjs'

const lun = 1

/** What tgtadm is told this by: a socket beside the data instead of the one of a tgtd that the machine may have. */
const controlPort = '0'

const about = {
  rdwr: 'backing store rdwr (16 threads, page cache), one plain file',
  aio: 'backing store aio (O_DIRECT: past the page cache), one plain file',
}

/** In the foreground, on the loopback interface, of our own: never the machine's service. Needs no root. */
async function start(store, { directory, sizeBytes }) {
  const name = `tgtd-${store}`
  const file = plainFile(join(directory, `${name}.img`), sizeBytes)
  const port = await freePort()
  const portal = `127.0.0.1:${port}`
  const iqn = `iqn.2000-01.example:${name}`
  // A relative name, as that of a socket is short.
  const options = { cwd: directory, env: { TGT_IPC_SOCKET: name } }
  const child = spawn('tgtd', ['-f', '-C', controlPort, '-t', '16', '--iscsi', `portal=${portal}`], {
    ...{ cwd: directory, env: { ...process.env, ...options.env }, stdio: 'ignore', detached: true },
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const tell = (...args) => run('tgtadm', ['-C', controlPort, '--lld', 'iscsi', '--tid', '1', ...args], options)
  const stop = async () => {
    child.kill('SIGKILL') // It ignores others while it has targets, and its file is thrown away.
    await ended
  }
  try {
    await connectable(port, child)
    await tell('--mode', 'target', '--op', 'new', '--targetname', iqn)
    await tell('--mode', 'logicalunit', '--op', 'new', '--lun', String(lun), '--bstype', store, '--backing-store', file)
    await tell('--mode', 'target', '--op', 'bind', '--initiator-address', 'ALL')
  } catch (error) {
    await stop()
    throw error
  }
  return {
    name,
    about: `tgtd ${versionOf('tgtd')}, ${about[store]}`,
    bypassesCache: store === 'aio',
    target: () => iscsiTarget({ portal, iqn, lun }),
    files: () => [file],
    processes: () => [{ pid: child.pid, kind: 'tgtd' }],
    stop,
  }
}

export const tgtdRdwr = (options) => start('rdwr', options)
export const tgtdAio = (options) => start('aio', options)
