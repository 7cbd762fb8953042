// Directories as Longhorn's v1 engine has them, made and read by a program of its own that shares nothing with what is
// tested: Python, which has fallocate and the FIEMAP ioctl at hand.
import { execFileSync } from 'node:child_process'

const maker = `
import json, os, sys
spec = json.load(sys.stdin)
os.mkdir(spec['path'])
os.chdir(spec['path'])
for layer in spec['layers']:
    fd = os.open(layer['file'], os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, layer.get('size', spec['size']))
    for at, length in layer.get('unwritten', []):
        os.posix_fallocate(fd, at, length)
    for at, length, fill in layer.get('data', []):
        os.pwrite(fd, fill.encode() * length, at)
    os.fsync(fd)
    os.close(fd)
    meta = {'Name': layer['file'], 'Parent': layer.get('parent', ''), 'Removed': False, 'UserCreated': True,
            'Created': layer.get('created', '2024-05-06T07:08:09Z'), 'Labels': layer.get('labels')}
    meta.update(layer.get('meta', {}))
    json.dump(meta, open(layer['file'] + '.meta', 'w'))
head = spec['layers'][-1]
volume = {'Size': spec['size'], 'Head': head['file'], 'Dirty': False, 'Rebuilding': False, 'Error': '',
          'Parent': head.get('parent', ''), 'SectorSize': 512, 'BackingFilePath': ''}
volume.update(spec.get('volume', {}))
json.dump(volume, open('volume.meta', 'w'))
if 'revision' in spec:
    open('revision.counter', 'wb').write(str(spec['revision']).encode().ljust(4096, b'\\0'))
`

// Each layer's extents, written or not, stand above those of its parents; nothing else of the directory is known here.
const reader = `
import array, fcntl, hashlib, json, os, struct, sys
directory, head, out = sys.argv[1:4]
os.chdir(directory)
volume = json.load(open('volume.meta'))
chain, name = [], head or volume['Head']
while name:
    chain.append(name)
    name = json.load(open(name + '.meta')).get('Parent', '')
content = bytearray(volume['Size'])
for name in reversed(chain):
    fd = os.open(name, os.O_RDONLY)
    at, end = 0, volume['Size']
    while at < end:
        count = 512
        request = array.array('B', struct.pack('=QQLLLL', at, end - at, 1, 0, count, 0) + bytes(56 * count))
        fcntl.ioctl(fd, 0xC020660B, request)
        found = struct.unpack_from('=L', request, 20)[0]
        for i in range(found):
            logical, _, length = struct.unpack_from('=QQQ', request, 32 + 56 * i)
            begin, stop = logical, min(end, logical + length)
            if begin < stop:
                data = os.pread(fd, stop - begin, begin)
                content[begin:stop] = data + bytes(stop - begin - len(data))
            at = max(at, logical + length)
        if found < count:
            break
    os.close(fd)
open(out, 'wb').write(content)
json.dump({'chain': chain, 'volume': volume}, sys.stdout)
`

export interface LayerSpec {
  file: string
  parent?: string
  size?: number
  /** Offset, length, one character. */
  data?: [number, number, string][]
  unwritten?: [number, number][]
  labels?: Record<string, string>
  created?: string
  /** Fields that stand instead of the usual ones. */
  meta?: object
}

export interface DirectorySpec {
  path: string
  size: number
  /** From the bottom to the head. */
  layers: LayerSpec[]
  volume?: object
  revision?: number
}

export function makeLonghornDirectory(spec: DirectorySpec): void {
  execFileSync('python3', ['-c', maker], { input: JSON.stringify(spec) })
}

export interface Composed {
  chain: string[]
  volume: Record<string, unknown>
}

/** Writes what Longhorn reads from the volume, or from the layer `head` down, to the file `out`. */
export function composeLonghorn(directory: string, out: string, head = ''): Composed {
  return JSON.parse(execFileSync('python3', ['-c', reader, directory, head, out], { encoding: 'utf8' })) as Composed
}
