/* RocksGets.java - look-ups in a RocksDB that holds the records of bench.h, all in its cache. */

import java.io.File;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.util.SplittableRandom;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.DataBlockIndexType;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;
import org.rocksdb.RocksDBException;
import org.rocksdb.WriteOptions;

final class RocksGets {
    private static final int WARM_GETS = 500_000;
    private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

    private final RocksDB db;
    private final byte[] value = new byte[4096];
    private int kept; // so that nothing is optimised away

    RocksGets(File directory, int keys, int valueBytes) throws RocksDBException {
        Options options = new Options().setCreateIfMissing(true);
        // found to be the fastest for single keys
        BlockBasedTableConfig table = new BlockBasedTableConfig()
                .setDataBlockIndexType(DataBlockIndexType.kDataBlockBinaryAndHash);
        RocksSettings.apply(options, table);
        directory.mkdirs();
        db = RocksDB.open(options, directory.getPath());
        fill(keys, valueBytes);
        db.compactRange();
        round(keys, WARM_GETS, 1);
    }

    private void fill(int keys, int valueBytes) throws RocksDBException {
        SplittableRandom random = new SplittableRandom(1);
        try (WriteOptions unlogged = new WriteOptions().setDisableWAL(true)) {
            byte[] key = firstKey();
            byte[] bytes = new byte[valueBytes];
            for (int i = 0; i < keys; i++) {
                setKey(key, i);
                random.nextBytes(bytes);
                db.put(unlogged, key, bytes);
            }
        }
    }

    private static byte[] firstKey() {
        return "key-00000000".getBytes(StandardCharsets.US_ASCII);
    }

    private static void setKey(byte[] key, int i) {
        for (int at = key.length - 1; at >= 4; at--, i /= 10)
            key[at] = (byte) ('0' + i % 10);
    }

    /** Processor time of a look-up in nanoseconds, less what making a key takes. */
    double round(int keys, int gets, long seed) throws RocksDBException {
        byte[] key = firstKey();
        SplittableRandom random = new SplittableRandom(seed);
        long began = THREADS.getCurrentThreadCpuTime();
        for (int i = 0; i < gets; i++) {
            setKey(key, random.nextInt(keys));
            kept += key[11];
        }
        long between = THREADS.getCurrentThreadCpuTime();
        for (int i = 0; i < gets; i++) {
            setKey(key, random.nextInt(keys));
            if (db.get(key, value) < 0)
                throw new IllegalStateException("not there");
        }
        return (THREADS.getCurrentThreadCpuTime() - between - (between - began)) / (double) gets;
    }
}
