/* OldAndNew.java - what sidenote does, as a processor: each overwritten key's old and new value. */

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

final class OldAndNew implements Processor<byte[], byte[], byte[], byte[]> {
    static final String STORE = "latest";

    private static final byte[] BEFORE = text("{\"before\":");
    private static final byte[] AFTER = text(",\"after\":");
    private static final byte[] END = text("}");
    private static final byte[] NULL = text("null");

    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> latest;

    private static byte[] text(String s) {
        return s.getBytes(StandardCharsets.US_ASCII);
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> c) {
        context = c;
        latest = c.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> r) {
        byte[] before = latest.get(r.key());
        byte[] after = r.value();
        latest.put(r.key(), after);
        if (before != null && !Arrays.equals(before, after))
            context.forward(r.withValue(pair(before, after == null ? NULL : after)));
    }

    private static byte[] pair(byte[] before, byte[] after) {
        byte[] all = new byte[BEFORE.length + before.length + AFTER.length + after.length
                + END.length];
        int n = 0;
        for (byte[] part : new byte[][] {BEFORE, before, AFTER, after, END}) {
            System.arraycopy(part, 0, all, n, part.length);
            n += part.length;
        }
        return all;
    }
}
