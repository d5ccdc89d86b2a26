/* RocksSettings.java - RocksDB with room: nothing stalls, nothing is compressed. */

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.CompressionType;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;

public final class RocksSettings implements RocksDBConfigSetter {
    private static final Cache SHARED;
    private static final BloomFilter BLOOM;

    static {
        RocksDB.loadLibrary();
        SHARED = new LRUCache(1L << 30);
        BLOOM = new BloomFilter(10);
    }

    static void apply(Options options, BlockBasedTableConfig table) {
        table.setBlockCache(SHARED);
        table.setFilterPolicy(BLOOM);
        options.setTableFormatConfig(table);
        options.setWriteBufferSize(64 << 20);
        options.setMaxWriteBufferNumber(4);
        options.setCompressionType(CompressionType.NO_COMPRESSION);
        options.setIncreaseParallelism(2);
    }

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
        apply(options, (BlockBasedTableConfig) options.tableFormatConfig());
    }

    @Override
    public void close(String store, Options options) {
        // cache and filter are everybody's
    }
}
