/*
 * Peer.java - Kafka Streams and RocksDB, told on stdin what to do.
 *
 *   start SOURCE TARGET APPLICATION COMMIT_MS THREADS    a topology that forwards old and new value
 *   global SOURCE APPLICATION                            a GlobalKTable of SOURCE, nothing else
 *   close [wipe]                                         ends it; with `wipe`, its local state too
 *   rocks KEYS VALUE_BYTES                               fills a RocksDB
 *   get KEYS GETS SEED                                   times look-ups of random keys in it
 *
 * Each answers with a line of JSON: "running" when the state is RUNNING, "closed", and so on, with
 * the moment in nanoseconds of CLOCK_MONOTONIC, which System.nanoTime() is on Linux. The settings
 * are the fastest that were found (docs/performance.md).
 */

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class Peer {
    private static final int MANY_RECORDS = 5000;

    /** The source topic is the changelog, as the DSL makes it for an optimised KTable. */
    private static final class SourceIsChangelog extends Topology {
        SourceIsChangelog(String source, String target) {
            addSource("source", new ByteArrayDeserializer(), new ByteArrayDeserializer(), source);
            addProcessor("old-and-new", OldAndNew::new, "source");
            addStateStore(Stores.keyValueStoreBuilder(
                    Stores.persistentKeyValueStore(OldAndNew.STORE), Serdes.ByteArray(),
                    Serdes.ByteArray()).withLoggingDisabled().withCachingDisabled(), "old-and-new");
            addSink("target", target, new ByteArraySerializer(), new ByteArraySerializer(),
                    "old-and-new");
            internalTopologyBuilder.connectSourceStoreAndTopic(OldAndNew.STORE, source);
        }
    }

    private final String brokers;
    private final File directory;
    private KafkaStreams streams;
    private RocksGets rocks;

    private Peer(String brokers, String directory) {
        this.brokers = brokers;
        this.directory = new File(directory);
    }

    private static synchronized void say(String event, String more) {
        System.out.println("{\"event\":\"" + event + "\",\"at_ns\":" + System.nanoTime() + more
                + "}");
        System.out.flush();
    }

    private Properties properties(String application, String commitMs, String threads) {
        Properties p = new Properties();
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        p.put(StreamsConfig.STATE_DIR_CONFIG, new File(directory, "state").getPath());
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commitMs);
        p.put(StreamsConfig.POLL_MS_CONFIG, commitMs);
        p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, MANY_RECORDS);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        p.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksSettings.class);
        p.put(StreamsConfig.consumerPrefix("max.poll.records"), MANY_RECORDS);
        p.put(StreamsConfig.consumerPrefix("fetch.max.bytes"), 64 << 20);
        p.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 8 << 20);
        p.put(StreamsConfig.consumerPrefix("check.crcs"), false);
        p.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        // Static membership: a restart waits for nobody. And it may be stopped for a while.
        p.put(StreamsConfig.mainConsumerPrefix("group.instance.id"), "peer");
        p.put(StreamsConfig.mainConsumerPrefix("session.timeout.ms"), 600000);
        p.put(StreamsConfig.mainConsumerPrefix("max.poll.interval.ms"), 600000);
        p.put(StreamsConfig.producerPrefix("linger.ms"), 100);
        p.put(StreamsConfig.producerPrefix("batch.size"), 256 << 10);
        return p;
    }

    private void start(Topology topology, Properties properties) {
        streams = new KafkaStreams(topology, properties);
        streams.setUncaughtExceptionHandler(e -> {
            say("died", "");
            return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING)
                say("running", "");
        });
        say("started", "");
        streams.start();
    }

    private static Topology globalTable(String source) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.globalTable(source, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()),
                Materialized.<byte[], byte[], KeyValueStore<Bytes, byte[]>>as("global")
                        .withCachingDisabled());
        return builder.build();
    }

    private void close(boolean wipe) {
        boolean closed = streams.close(Duration.ofSeconds(60));
        if (wipe)
            streams.cleanUp();
        streams = null;
        say(closed ? "closed" : "died", "");
    }

    private void obey(String[] words) throws Exception {
        switch (words[0]) {
            case "start" -> start(new SourceIsChangelog(words[1], words[2]),
                    properties(words[3], words[4], words[5]));
            case "global" -> start(globalTable(words[1]), properties(words[2], "100", "1"));
            case "close" -> close(words.length > 1);
            case "rocks" -> {
                rocks = new RocksGets(new File(directory, "rocks"), Integer.parseInt(words[1]),
                        Integer.parseInt(words[2]));
                say("filled", "");
            }
            case "get" -> say("got", ",\"ns\":" + rocks.round(Integer.parseInt(words[1]),
                    Integer.parseInt(words[2]), Long.parseLong(words[3])));
            default -> throw new IllegalArgumentException(words[0]);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Peer peer = new Peer(arguments[0], arguments[1]);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        say("ready", "");
        for (String line; (line = commands.readLine()) != null;)
            peer.obey(line.split(" "));
        System.exit(0);
    }
}
