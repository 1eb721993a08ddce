// java -cp 'lib/*' Publish.java TOPIC THREAD_ID FAN_OUT_ID FILE
// Publishes each line of FILE (nanoseconds, a tab, text) as a task of one fan-out, all of them or none.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

final class Publish {
    private static final String NODE = "count_line";
    private static final String FOLD = "sum_lines";
    private static final UUID NAMESPACE = UUID.fromString("8f1f5a5e-5f0e-5f6a-9a55-fa0f01d00001");

    private record FanOut(String id, int size) {}

    public static void main(String[] args) {
        if (args.length != 4) {
            System.err.println("usage: java -cp 'lib/*' Publish.java TOPIC THREAD_ID FAN_OUT_ID FILE");
            System.exit(2);
        }
        try {
            List<String> lines = Files.readAllLines(Path.of(args[3]), UTF_8);
            publish(args[0], args[1], new FanOut(args[2], lines.size()), lines);
            System.out.printf("published %d tasks of fan-out %s to %s%n", lines.size(), args[2], args[0]);
        } catch (Exception error) {
            System.err.println("failed: " + error + "; publishing again under the same id is harmless");
            System.exit(1);
        }
    }

    private static void publish(String topic, String threadId, FanOut fanOut, List<String> lines) throws Exception {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", System.getenv().getOrDefault("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
                "client.id", "fanfold-java-example",
                "max.block.ms", 15_000,
                "transactional.id", "fanfold-" + fanOut.id());
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new ByteArraySerializer())) {
            producer.partitionsFor(topic); // throws if there is none; send would wait for it, record by record
            producer.initTransactions();
            producer.beginTransaction();
            try {
                for (int index = 0; index < lines.size(); index++) {
                    producer.send(toRecord(topic, threadId, fanOut, index, lines.get(index).split("\t", 2)));
                }
                producer.commitTransaction(); // waits for all sends, and throws if one of them failed
            } catch (Exception error) {
                abort(producer, error);
                throw error;
            }
        }
    }

    private static void abort(KafkaProducer<String, byte[]> producer, Exception cause) {
        try {
            producer.abortTransaction();
        } catch (KafkaException error) { // it was fenced by a later publisher of the same fan-out, for example
            cause.addSuppressed(error);
        }
    }

    private static ProducerRecord<String, byte[]> toRecord(
            String topic, String threadId, FanOut fanOut, int index, String[] line) throws Exception {
        String taskId = taskId(fanOut.id(), index);
        byte[] value = encode(taskId, threadId, fanOut, index, Long.parseLong(line[0]), line[1]);
        var record = new ProducerRecord<>(topic, taskId, value);
        header(record, "ce_specversion", "1.0");
        header(record, "ce_id", taskId);
        header(record, "ce_source", "fanfold-java-example");
        header(record, "ce_type", "fanfold.task.v1");
        header(record, "content-type", "application/vnd.fanfold.task+msgpack; version=1");
        header(record, "fanfold-thread-id", threadId);
        header(record, "fanfold-fan-out-id", fanOut.id());
        header(record, "fanfold-node", NODE);
        header(record, "fanfold-run", "1");
        if (System.getenv("TRACEPARENT") != null) {
            header(record, "traceparent", System.getenv("TRACEPARENT"));
        }
        return record;
    }

    /** The task as a msgpack map. Text and bytes are different types there: packString and packBinaryHeader. */
    private static byte[] encode(String taskId, String threadId, FanOut fanOut, int index, long atNs, String text)
            throws IOException, NoSuchAlgorithmException {
        byte[] sha256 = MessageDigest.getInstance("SHA-256").digest(text.getBytes(UTF_8));
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packMapHeader(7);
            packer.packString("v").packInt(1);
            packer.packString("task_id").packString(taskId);
            packer.packString("thread_id").packString(threadId);
            packer.packString("fan_out").packMapHeader(3);
            packer.packString("id").packString(fanOut.id());
            packer.packString("size").packInt(fanOut.size());
            packer.packString("fold").packString(FOLD);
            packer.packString("index").packInt(index);
            packer.packString("node").packString(NODE);
            packer.packString("arg").packMapHeader(3);
            packer.packString("text").packString(text);
            packer.packString("at_ns").packLong(atNs);
            packer.packString("sha256").packBinaryHeader(sha256.length).writePayload(sha256);
            return packer.toByteArray();
        }
    }

    /** The id that every producer derives for a task, a UUIDv5. (UUID.nameUUIDFromBytes makes version 3: MD5.) */
    private static String taskId(String fanOutId, int index) throws NoSuchAlgorithmException {
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
        sha1.update(ByteBuffer.allocate(16)
                .putLong(NAMESPACE.getMostSignificantBits())
                .putLong(NAMESPACE.getLeastSignificantBits())
                .array());
        ByteBuffer hash = ByteBuffer.wrap(sha1.digest((fanOutId + "/" + index).getBytes(UTF_8)));
        long high = hash.getLong() & ~0xF000L | 0x5000L;
        long low = hash.getLong() & ~(0x3L << 62) | 0x2L << 62;
        return new UUID(high, low).toString();
    }

    private static void header(ProducerRecord<String, byte[]> record, String name, String value) {
        record.headers().add(name, value.getBytes(UTF_8));
    }
}
