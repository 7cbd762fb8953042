// Makes volumes: checks what is asked for, places the replicas, gives ports, and stores the volume. Who calls sees to it
// that one is made after the other, as ports and places are looked for among what is stored.
import { randomBytes } from 'node:crypto'
import { AnkoleError } from '../api/errors.js'
import { type CacheMode, type Chap, type Draft, type Volume } from '../store/index.js'
import { adoptionOf, placeOf, refuseReadOnly, snapshotsOf, type AdoptionRequest } from './adoption.js'
import { checkChap } from './chap.js'
import { checkCloneable, cloneSources, draftLinked, type LinkedClone } from './clones.js'
import { deleting, placementNodes, type ClusterView } from './context.js'
import { isReady } from './observation.js'
import { growthObstacle, place, type Placement } from './placement.js'
import { freePort, portsFrom, portsOf } from './ports.js'
import { beginTransfer } from './transfer.js'
import { checkName, checkPhysicalBlock, checkReplicas, formatBytes, physicalBlockBytesDefault } from './volume-spec.js'

export interface VolumeRequest {
  name: string
  sizeBytes: number
  numberOfReplicas: number
  cache: CacheMode
  /** True if not given. */
  checksums?: boolean
  /** 4096 if not given; it stays what it is. */
  physicalBlockBytes?: number | undefined
  chap?: Chap
  /** Of the import that it is made for: nobody else may attach it before that has ended. */
  transfer?: string | undefined
  /** Its one replica is made of that directory. */
  adopt?: AdoptionRequest | undefined
  /** It is to hold what that snapshot does, which who imports it sees to. */
  copyOf?: { volume: string; snapshot: string } | undefined
}

/** Of a linked clone: what is not here is as its source has it. */
export interface CloneVolume {
  name: string
  chap?: Chap | undefined
}

export class VolumeMaker {
  constructor(private readonly cluster: ClusterView) {}

  /** Placed and stored when it resolves. Throws what is wrong with the request, already-exists and cannot-place. */
  async create(request: VolumeRequest, linked?: LinkedClone): Promise<Volume> {
    const { options } = this.cluster
    const { name, sizeBytes, adopt } = request
    const checked = this.#check(request, linked?.clonedFrom)
    const draft: Draft<'Volume'> = {
      ...checked,
      secret: randomBytes(32).toString('hex'),
      replicas: linked?.replicas ?? this.#replicasFor(request),
      ...(await this.#freePorts()),
      membership: {
        attachment: 0,
        node: null,
        record: linked?.record ?? { epoch: { attachment: 0, run: 0 }, generation: 0, members: [], snapshot: '' },
        ...(options.plan.storeId === undefined ? {} : { storeId: options.plan.storeId }),
      },
      status: { state: 'creating', robustness: 'unknown', message: '', replicas: [] },
    }
    const volume = await options.store.create('Volume', draft)
    options.log.info({ volume: name, sizeBytes, replicas: volume.replicas }, 'volume created')
    if (adopt !== undefined) {
      // One that is not stored is found by its layer as the volume is attached.
      for (const snapshot of snapshotsOf(volume, adopt, Date.now())) await options.store.create('Snapshot', snapshot)
    }
    return volume
  }

  /**
   * A linked clone of a snapshot, on the disks of the volume's replicas: placed and stored when it resolves. Throws
   * snapshot-not-ready, volume-deleting, volume-read-only and what `create` does.
   */
  async clone(volume: string, snapshot: string, { name, chap }: CloneVolume): Promise<Volume> {
    const source = this.cluster.volume(volume)
    refuseReadOnly(source, `Snapshot ${snapshot} cannot be cloned by links, which needs its files`)
    const { sizeBytes } = this.cluster.snapshot(volume, snapshot)
    const linked = this.#linked(source, snapshot)
    const { cache, checksums = true, physicalBlockBytes } = source.spec
    const { length: numberOfReplicas } = linked.replicas
    const request = { name, sizeBytes, numberOfReplicas, cache, checksums, physicalBlockBytes }
    const login = chap ?? source.chap
    return await this.create({ ...request, ...(login === undefined ? {} : { chap: login }) }, linked)
  }

  /** What a release without iSCSI stored has no port for it. */
  async givePort(name: string): Promise<void> {
    const { iscsi, nbdPortFirst } = this.cluster.options.plan
    const port = await freePort(iscsi.listen.host, portsFrom(nbdPortFirst).iscsi, this.#portsTaken())
    await this.cluster.change(name, (volume) => {
      if (volume.iscsiPort !== undefined) return false
      volume.iscsiPort = port
      return true
    })
  }

  /** What of the volume is as it was asked for. */
  #check(
    request: VolumeRequest,
    linkedTo: Volume['clonedFrom'],
  ): Pick<Draft<'Volume'>, 'metadata' | 'spec' | 'chap' | 'transfer' | 'adoption' | 'clonedFrom'> {
    const { name, sizeBytes, numberOfReplicas, cache, checksums = true, adopt } = request
    checkName(name)
    const transfer = request.transfer === undefined ? undefined : beginTransfer('import', request.transfer)
    checkReplicas(numberOfReplicas)
    const physicalBlockBytes = checkPhysicalBlock(request.physicalBlockBytes ?? physicalBlockBytesDefault)
    const clonedFrom = linkedTo ?? this.#copyOf(request.copyOf, sizeBytes, transfer)
    const chap = request.chap ?? (clonedFrom === undefined ? undefined : this.cluster.volume(clonedFrom.volume).chap)
    if (chap !== undefined) checkChap(chap)
    const namesake = this.cluster.volumes().find(({ metadata }) => metadata.name === name)
    if (namesake?.metadata.deletionTimestamp !== undefined) throw deleting(name, 'created')
    if (namesake !== undefined) throw new AnkoleError('already-exists', `Volume ${name} exists already.`)
    return {
      metadata: { name },
      spec: { sizeBytes, numberOfReplicas, cache, checksums, physicalBlockBytes, nodeID: null },
      ...(chap === undefined ? {} : { chap }),
      ...(transfer === undefined ? {} : { transfer }),
      ...(adopt === undefined ? {} : { adoption: adoptionOf(adopt) }),
      ...(clonedFrom === undefined ? {} : { clonedFrom }),
    }
  }

  /** Throws invalid-argument and invalid-size. */
  #copyOf(of: VolumeRequest['copyOf'], sizeBytes: number, transfer: Volume['transfer']): Volume['clonedFrom'] {
    if (of === undefined) return undefined
    if (transfer === undefined) {
      throw new AnkoleError('invalid-argument', 'A copy of a snapshot is made by who has the id of an import.')
    }
    const source = this.cluster.volume(of.volume)
    const snapshot = this.cluster.snapshot(of.volume, of.snapshot)
    checkCloneable(source, snapshot)
    if (sizeBytes < snapshot.sizeBytes) {
      throw new AnkoleError(
        'invalid-size',
        `Snapshot ${of.snapshot} of volume ${of.volume} has ${formatBytes(snapshot.sizeBytes)} (${snapshot.sizeBytes} ` +
          `bytes): a volume of ${formatBytes(sizeBytes)} does not hold it.`,
      )
    }
    return { volume: of.volume, volumeUid: source.metadata.uid, snapshot: of.snapshot, linked: false }
  }

  /** Throws cannot-place. */
  #replicasFor({ name, sizeBytes, numberOfReplicas, adopt }: VolumeRequest): Volume['replicas'] {
    const placement = this.#place(sizeBytes, numberOfReplicas, adopt)
    if (placement.placed) return placement.replicas.map((where) => ({ id: newId(), ...where }))
    throw new AnkoleError('cannot-place', `Volume ${name} cannot be created: ${placement.reason}.`)
  }

  #place(sizeBytes: number, numberOfReplicas: number, adopt: AdoptionRequest | undefined): Placement {
    if (adopt === undefined) return place(placementNodes(this.cluster), { sizeBytes, numberOfReplicas })
    if (numberOfReplicas !== 1) {
      throw new AnkoleError('invalid-argument', `A directory becomes one replica, and not ${numberOfReplicas}.`)
    }
    return { placed: true, replicas: [placeOf(adopt, this.cluster.nodes(), this.#isDiskReady)] }
  }

  #linked(volume: Volume, wanted: string): LinkedClone {
    const { name } = volume.metadata
    const snapshot = this.cluster.snapshot(name, wanted)
    const layer = checkCloneable(volume, snapshot)
    const sources = cloneSources(volume, this.cluster.engine(volume)?.members, this.#isDiskReady)
    const obstacle = growthObstacle(placementNodes(this.cluster), sources, snapshot.sizeBytes)
    if (obstacle !== null) {
      throw new AnkoleError('cannot-place', `Snapshot ${wanted} of volume ${name} cannot be cloned: ${obstacle}.`)
    }
    return draftLinked(volume, snapshot, layer, sources, newId)
  }

  readonly #isDiskReady = (node: string, disk: string): boolean =>
    isReady(
      this.cluster
        .reports()
        .get(node)
        ?.disks.find(({ id }) => id === disk),
    )

  async #freePorts(): Promise<{ nbdPort: number; iscsiPort: number }> {
    const { nbdHost, iscsi, nbdPortFirst } = this.cluster.options.plan
    const first = portsFrom(nbdPortFirst)
    const taken = this.#portsTaken()
    const nbdPort = await freePort(nbdHost, first.nbd, taken)
    return { nbdPort, iscsiPort: await freePort(iscsi.listen.host, first.iscsi, taken.add(nbdPort)) }
  }

  #portsTaken(): Set<number> {
    return portsOf(this.cluster.volumes()).add(this.cluster.options.plan.iscsi.listen.port)
  }
}

/** Of a replica. */
function newId(): string {
  return randomBytes(8).toString('hex')
}
