// node publish.mjs TOPIC THREAD_ID FAN_OUT_ID FILE
// Publishes each line of FILE (nanoseconds, a tab, text) as a task of one fan-out, all of them or none.

import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { encode } from '@msgpack/msgpack'
import { Producer, stringSerializers } from '@platformatic/kafka'

const NODE = 'count_line'
const FOLD = 'sum_lines'
const NAMESPACE = Buffer.from('8f1f5a5e5f0e5f6a9a55fa0f01d00001', 'hex')

// The id that every producer derives for a task: whoever publishes the fan-out again publishes the same work.
function taskId(fanOutId, index) {
  const uuid = createHash('sha1').update(NAMESPACE).update(`${fanOutId}/${index}`).digest().subarray(0, 16)
  uuid[6] = (uuid[6] & 0x0f) | 0x50
  uuid[8] = (uuid[8] & 0x3f) | 0x80
  return uuid.toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5')
}

function message(topic, threadId, fanOut, index, [at, text]) {
  const task = {
    v: 1,
    task_id: taskId(fanOut.id, index),
    thread_id: threadId,
    fan_out: fanOut,
    index,
    node: NODE,
    // Text is a string, bytes are a Uint8Array. BigInt from the text of the number: Number would round it.
    arg: { text, at_ns: BigInt(at), sha256: createHash('sha256').update(text, 'utf8').digest() }
  }
  const headers = {
    ce_specversion: '1.0',
    ce_id: task.task_id,
    ce_source: 'fanfold-node-example',
    ce_type: 'fanfold.task.v1',
    'content-type': 'application/vnd.fanfold.task+msgpack; version=1',
    'fanfold-thread-id': threadId,
    'fanfold-fan-out-id': fanOut.id,
    'fanfold-node': NODE,
    'fanfold-run': '1'
  }
  if (process.env.TRACEPARENT) headers.traceparent = process.env.TRACEPARENT
  // useBigInt64 writes a BigInt as an integer of 64 bits, and every plain number of more than 32 bits as a float, which
  // is refused where an integer belongs: times in milliseconds (deadline_ms) have to be BigInt too.
  const value = Buffer.from(encode(task, { useBigInt64: true }))
  return { topic, key: task.task_id, value, headers }
}

const [topic, threadId, fanOutId, file] = process.argv.slice(2)
if (!file) {
  console.error('usage: node publish.mjs TOPIC THREAD_ID FAN_OUT_ID FILE')
  process.exit(2)
}
const lines = readFileSync(file, 'utf8').trimEnd().split('\n').map(line => line.split('\t'))
const fanOut = { id: fanOutId, size: lines.length, fold: FOLD }
const messages = lines.map((line, index) => message(topic, threadId, fanOut, index, line))

const producer = new Producer({
  clientId: 'fanfold-node-example',
  bootstrapBrokers: (process.env.KAFKA_BOOTSTRAP_SERVERS ?? 'localhost:9092').split(','),
  // A new one each time: this client cannot take over an id that another process has used (PRODUCER_FENCED).
  transactionalId: `fanfold-${randomUUID()}`,
  idempotent: true,
  retries: 5, // with idempotent it would try for ever, for example to find a topic that is not there
  serializers: { ...stringSerializers, value: value => value }
})
try {
  const transaction = await producer.beginTransaction()
  try {
    await transaction.send({ messages })
    await transaction.commit()
  } catch (error) {
    await transaction.abort().catch(() => {}) // what counts is the first error
    throw error
  }
} finally {
  await producer.close()
}
console.log(`published ${messages.length} tasks of fan-out ${fanOutId} to ${topic}`)
