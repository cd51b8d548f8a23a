"""Decodes a .bsl file: bsl_decode.py FILE [OUT.npz]. Needs NumPy only; the format is in docs/format.md."""
import struct, sys, zlib
import numpy as np

TYPES = ("F32 F16 BF16 F64 F8_E4M3 F8_E5M2 F8_E8M0 I8 I16 I32 I64 U8 U16 U32 U64 BOOL C64").split()
WIDTHS = [4, 2, 2, 8, 1, 1, 1, 1, 2, 4, 8, 1, 2, 4, 8, 1, 8]


class Cursor:
    def __init__(self, data): self.data, self.at = data, 0
    def take(self, n):
        self.at += n
        assert self.at <= len(self.data), "truncated"
        return self.data[self.at - n:self.at]
    def u8(self): return self.take(1)[0]
    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128: return value


class Bits:
    def __init__(self, data): self.data, self.at = data, 0
    def bit(self):
        self.at += 1
        return self.data[(self.at - 1) >> 3] >> ((self.at - 1) & 7) & 1
    def golomb(self, order):
        length = order
        while not self.bit(): length += 1
        return (1 << length) + sum(self.bit() << i for i in range(length)) - (1 << order)


# States of the trellis after an even and an odd index
NEXT = [(0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5)]


def unzigzag(v): return (v >> 1) ^ -(v & 1)
def truncate(a, b): return a // b if a >= 0 else -(-a // b)
def clamp(v, low, high): return max(low, min(high, v))


# Tables of the mixing coder
SQUASH = [0] * 6143
e = 1 << 40
for d in range(3072):
    low = clamp((e << 16) // ((1 << 40) + e), 1, 32768)
    SQUASH[3071 - d], SQUASH[3071 + d] = low, 65536 - low
    e = e * 1095225038176 >> 40
STRETCH, i = [], 0
for bucket in range(4096):
    while i + 1 < 6143 and SQUASH[i] < bucket * 16 + 8: i += 1
    STRETCH.append(i - 3071)
RATE = [131072 // (2 * n + 3) for n in range(1024)]
FRACTION = []
for i in range(128):
    m, digits = (128 + i) << 24, 0
    for _ in range(6):
        m, digits = m * m >> 31, digits << 1
        if m >> 32: m, digits = m >> 1, digits | 1
    FRACTION.append(digits)


def log2(v):
    n = v.bit_length() - 1
    return n * 64 + FRACTION[(v << (31 - n)) >> 24 & 127]


class Range:
    def __init__(self, data):
        self.data, self.at, self.range = data, 0, 2**64 - 1
        self.value = self.word() << 32 | self.word()
    def word(self):
        self.at += 4
        return int.from_bytes(self.data[self.at - 4:self.at].ljust(4, b"\0"), "big")
    def bit(self, p):
        bound = (self.range >> 16) * p
        bit = self.value < bound
        if bit: self.range = bound
        else: self.value, self.range = self.value - bound, self.range - bound
        if self.range < 1 << 32:
            self.range, self.value = self.range << 32, self.value << 32 | self.word()
        return int(bit)
    def end(self): assert len(self.data) <= self.at and self.data[-1:] != b"\0", "stream end"


class Mixer:
    """Adaptive binary decisions: counters [probability·2^22, count] by key, six inputs, one bias."""
    def __init__(self, data, limit, shift, common):
        self.coder, self.limit = Range(data), limit
        self.shifts = [shift + common + 4] + [shift + 4] * 5 + [shift + common + 4]
        self.counters, self.weights = {}, {}
    def update(self, counter, bit, limit):
        counter[0] += ((bit << 22) - counter[0]) * RATE[counter[1]] >> 16
        counter[1] += counter[1] < limit
    def plain(self, key, start):
        counter = self.counters.setdefault(key, [start << 6, 0])
        bit = self.coder.bit(clamp(counter[0] >> 6, 32, 65504))
        self.update(counter, bit, 1023)
        return bit
    def mix(self, kind, keys, start, count):
        counters = [self.counters.setdefault(k, [start << 6, count]) for k in keys]
        w = self.weights.setdefault(kind, [1 << 20] + [174762] * 5 + [0])
        x = [STRETCH[c[0] >> 10] for c in counters] + [256]
        x[1:6] = [v - x[0] for v in x[1:6]]
        logit = clamp(sum((a >> 6) * b for a, b in zip(w, x)) + 8192 >> 14, -3071, 3071)
        p = SQUASH[logit + 3071]
        bit = self.coder.bit(p)
        error = (bit << 16) - p
        for k, s in enumerate(self.shifts):
            w[k] = clamp(w[k] + (x[k] * error + (1 << s - 1) >> s), -(3 << 20), 3 << 20)
        for c in counters: self.update(c, bit, self.limit)
        return bit


def mix_bytes(data, length, width):
    mixer, out = Mixer(data, 255, 6, 0), bytearray()
    for at in range(length):
        plane = at % width
        b = lambda d: out[at - d] if d <= at else 0
        one, two, three, four = b(1), b(2), b(3), b(4)
        if width == 1:
            keys = [0, one + 1, one | two << 8, one | two << 8 | three << 16,
                    one | two << 8 | three << 16 | four << 24, four << 8 | two]
        else:
            w = b(width)
            keys = [0, one + 1, w + 257, w | one << 8, one | two << 8, w | b(2 * width) << 8]
        bases = [((k ^ plane << 29) % 2**32 * 0x9e3779b1 + (k >> 15)) % 2**32 for k in keys]
        node = 1
        for shift in range(7, -1, -1):
            slots = [(((base + (node << 24 | node)) * 0x85ebca6b + i * 0x9e3779b1) % 2**32 >> 13) % 2**18
                     for i, base in enumerate(bases)]
            node = node << 1 | mixer.mix(plane * 8 + shift, slots, 32768, 0)
        out.append(node & 255)
    mixer.coder.end()
    return bytes(out)


def low_bits_of(mean):
    low = 0
    while mean >> low >= 40: low += 1
    return low


def on_trellis(k, t):
    code = 2 * k - t * ((k > 0) - (k < 0))
    assert -2**31 <= code < 2**31, "code beyond 32 bits"
    return code


def side(c, count):
    mean = c.varint()
    plain = dict(mean=mean, low=low_bits_of(mean), rows=32, columns=32, signs=False, squares=0, rl=[], cl=[], factors=[])
    return mix_codes(c.take(c.varint()), count, count, 0, plain, False)


def mix_parameters(c, rows, columns):
    mean, flags, priors = c.varint(), c.u8(), c.u8()
    p = dict(mean=mean, low=flags & 31, rows=1 << (priors & 15), columns=1 << (priors >> 4), signs=flags & 32)
    p["rl"] = side(c, rows) if flags & 64 else []
    p["cl"] = side(c, columns) if flags & 128 else []
    rank = c.u8()
    p["squares"] = rank >> 5 & 1
    p["factors"] = [(unzigzag(c.varint()), side(c, rows), side(c, columns)) for _ in range(rank & ~32)]
    return p


def by_level(value, level):
    value = value * (65536, 77936, 92682, 110218)[level & 3] >> 16
    return max(1, value << (level >> 2) if level >= 0 else value >> -(level >> 2))


class Columns:
    """What the rows of one class have left behind, per column."""
    def __init__(self, n, p):
        levels = p["cl"] if len(p["cl"]) else [0] * n
        self.rows, self.begin = 0, [by_level(p["columns"] * p["mean"], level) for level in levels]
        self.log = [level * 16 >> p["squares"] for level in levels]
        self.sum, self.signed, self.sign, self.above = [0] * n, [0] * n, [16] * n, [0] * n


def mix_codes(data, count, columns, first_row, p, trellis):
    mixer, mean, low, squares = Mixer(data, 1023, 7, 4), p["mean"], p["low"], p["squares"]
    start = clamp(65536 * (mean >> low) // ((mean >> low) + 16), 64, 65000)
    coder, mean_log, codes = mixer.coder, log2(mean), []
    statistic = lambda m: min(m, 65535) ** 2 if squares else m
    bin = lambda v, shift, n: clamp((v >> shift) + n // 2, 0, n - 1)
    classes = [Columns(columns, p) for _ in range(2)]
    states, out = [0] * columns, []
    for at in range(0, count, columns):
        row, width = first_row + at // columns, min(columns, count - at)
        level = p["rl"][row] if len(p["rl"]) else 0
        quiet = level <= -6
        col = classes[quiet]
        total, signed = by_level(p["rows"] * mean, level), 0
        for j in range(width):
            rlog = log2(min(total, 2**32 - 1)) - log2(j + p["rows"]) - mean_log >> squares
            clog = col.log[j]
            both = rlog + clog
            place = j * 1024 // columns if columns > 1024 else j
            mu = sum(scale * u[row] * v[j] for scale, u, v in p["factors"]) + 128
            above = clamp(col.above[j] - (mu >> 8), -20, 20) + 20
            t = states[j] & 1
            keys = [bin(both, 2, 128), 128 + bin(rlog, 3, 64),
                    192 + (bin(rlog, 5, 16) * 41 + above if p["signs"] else states[j] // 2 * 64 + bin(clog, 3, 64)),
                    848 + bin(rlog, 4, 32) * 32 + bin(clog, 4, 32), 1872 + place,
                    2896 + j * 16 // columns * 64 + bin(both, 3, 64)]
            mix = lambda kind, name, k, begin: mixer.mix((quiet, kind), [(quiet, name, i) for i in k], begin, 1)
            m = 0
            while m < 24 and mix(min(m, 8), (t, m), keys, start): m += 1
            flags = m
            if m == 24:
                n, v = 0, 1
                while n < 32 and mixer.plain((quiet, n), 32768): n += 1
                for _ in range(n): v = v << 1 | coder.bit(32768)
                m += v - 1
            for bit in range(low):
                if bit == 0: b = mix("low", ("low", t, min(flags, 7)), keys, 32768)
                elif bit == 1: b = mixer.plain((quiet, t, flags, m & 1), 32768)
                else: b = coder.bit(32768)
                m = m << 1 | b
            if m:
                if p["signs"]:
                    r = clamp(truncate(signed * 128, (j + 8) * mean) + 16, 0, 31)
                    c, f, kind = col.sign[j], mu >> 4 & 15, "sign%d" % min(m, 3)
                    negative = mix(kind, kind, [f, 128 + c, 192 + c * 16 + f, 848 + r * 32 + c, 1872 + place,
                                                2896 + min(m, 20) * 41 + above], 32768)
                else: negative = coder.bit(32768)
                if negative: m = -m
            codes.append(m + (mu >> 8))
            if trellis:
                out.append(on_trellis(codes[-1], t))
                states[j] = NEXT[states[j]][codes[-1] & 1]
            total, signed = total + statistic(abs(m)) * 16, signed + m
            col.sum[j], col.signed[j] = col.sum[j] + statistic(abs(m)), col.signed[j] + m
            col.above[j] = codes[-1]
        col.rows += 1
        for j in range(width):
            total = min(col.begin[j] + col.sum[j] * 16, 2**32 - 1)
            col.log[j] = log2(total) - log2(col.rows + p["columns"]) - mean_log >> squares
            col.sign[j] = clamp(truncate(col.signed[j] * 128, (col.rows + 8) * mean) + 16, 0, 31)
    coder.end()
    return out if trellis else codes


def rans_classes(c, rows, columns, trellis):
    first, order = c.u8(), c.u8()
    count, by_column = first & 31, first >> 5
    bits = Bits(c.take(c.varint()))
    width = (count - 1).bit_length()
    lines = columns if by_column else rows
    classes = [sum(bits.bit() << i for i in range(width)) for _ in range(lines if count > 1 else 0)] or [0] * lines
    tables = []
    for _ in range(count << trellis):
        low, values = unzigzag(bits.golomb(3)), bits.golomb(3)
        f = [bits.golomb(6) for _ in range(values)]
        tables.append((low, f + [4096 - sum(f)]))
    return by_column, np.array(classes), tables, order


def rans_codes(data, count, columns, first_row, p, trellis):
    by_column, classes, tables, order = p
    c = Cursor(data)
    places = np.arange(-(-count // columns) * columns).reshape(-1, columns)
    lines = places.T if by_column else places
    chosen = classes[:columns] if by_column else classes[first_row:][:len(places)]
    groups = [lines[chosen == k].ravel() for k in range(len(tables) >> trellis)]
    groups = [here[here < count] for here in groups]
    counts = [len(here) for here in groups]
    if trellis:
        firsts = [c.varint() for _ in groups]
        assert all(n <= all for n, all in zip(firsts, counts)), "indices of a quantiser"
        counts = [n for first, all in zip(firsts, counts) for n in (first, all - first)]
    segments = rans_segments(c, counts, tables, order)
    out = np.zeros(count, np.int64)
    if not trellis:
        for here, codes in zip(groups, segments): out[here] = codes
        return out
    queues = [iter(codes.tolist()) for codes in segments]
    owner = np.zeros(count, int)
    for k, here in enumerate(groups): owner[here] = k
    states = [0] * columns
    for i, k in enumerate(owner.tolist()):
        t = states[i % columns] & 1
        index = next(queues[2 * k + t])
        out[i] = on_trellis(index, t)
        states[i % columns] = NEXT[states[i % columns]][index & 1]
    return out


def rans_segments(c, counts, tables, order):
    n = c.varint()
    state = np.frombuffer(c.take(128), "<u4").astype(np.uint64)
    words = np.frombuffer(c.take(2 * n), "<u2").astype(np.uint64)
    escapes, at, segments = Bits(c.data[c.at:]), 0, []
    for count, (low, f) in zip(counts, tables):
        symbols = np.repeat(np.arange(len(f)), f)
        offsets = np.concatenate([np.arange(x) for x in f])
        f = np.array(f, np.uint64)
        codes = np.full(count, low + symbols[0])
        for i in range(0, count if f.max() < 4096 else 0, 32):
            s = state[:count - i]
            slot = (s & np.uint64(4095)).astype(int)
            codes[i:i + 32] = symbols[slot] + low
            s[:] = f[symbols[slot]] * (s >> np.uint64(12)) + offsets[slot].astype(np.uint64)
            short = s < 65536
            used = int(short.sum())
            s[short] = s[short] << np.uint64(16) | words[at:at + used]
            at += used
        high, limit = low + len(f) - 1, len(f) - 1
        for i in np.flatnonzero(codes == high) if f[-1] else []:
            below, d = escapes.bit(), escapes.golomb(order)
            inside = 2**32 - 1 - d
            codes[i] = (low + inside if inside < limit else low - 1 - d) if below else high + d
        segments.append(codes)
    assert at == n and (state == 65536).all() and len(escapes.data) == -(-escapes.at // 8), "stream end"
    return segments


def raw(coder, data, length, width):
    if coder == 0: return data
    if coder == 2: return mix_bytes(data, length, width)
    planes = np.frombuffer(zlib.decompress(data, -15), np.uint8)
    return planes.reshape(width, -1).T.tobytes() if length else b""


def grid(k):
    """2^(k/32) as f32: its mantissa is the greatest m with (2m - 1)^32 <= 2^(768 + k mod 32)."""
    m = 0
    for b in range(23, -1, -1): m += ((2 * (m + (1 << b)) - 1) ** 32 <= 1 << 768 + k % 32) << b
    return m * 2.0 ** (k // 32 - 23)


def scales(c, count):
    first = c.u8()
    form = first >> 2
    low, distance = (unzigzag(c.varint()), c.varint()) if form == 3 else (0, 0)
    kind = ("<f4", "<f2", "<u2", "<u2" if distance > 255 else "u1")[form]
    if form == 3 and distance == 0: return np.full(count, grid(low), "<f4")
    values = np.frombuffer(raw(first & 3, c.take(c.varint()), count * int(kind[-1]), int(kind[-1])), kind)
    if form == 2: values = (values.astype("<u4") << 16).view("<f4")
    if form == 3: values = np.array([grid(k) for k in range(low, low + distance + 1)], "<f4")[values]
    return values.astype("<f4")


def decode(data):
    """Metadata and tensors: a quantised tensor is a dict of codes, step, scales; others are (type, bytes)."""
    assert data[:8] == b"\x89BSL\r\n\x1a\n" and data[8:10] == b"\1\0", "not a .bsl file of version 1"
    align, length, checksum = 1 << data[12], struct.unpack_from("<Q", data, 20)[0], data[28:32]
    assert zlib.crc32(data[:28] + data[64:64 + length]) == int.from_bytes(checksum, "little"), "directory"
    d, at, name, result = Cursor(data[64:64 + length]), 64 + length, b"", {}

    def section():
        nonlocal at
        n, crc = d.varint(), int.from_bytes(d.take(4), "little")
        start = -(-at // align) * align
        at = start + n
        assert at <= len(data) and zlib.crc32(data[start:at]) == crc, "section of %r" % name
        return data[start:at]

    for _ in range(d.varint()):
        shared = d.varint()
        name = name[:shared] + d.take(d.varint())
        key, kind = name.decode(), d.u8()
        if kind == 0:
            coder, n = d.u8(), d.varint()
            result[key] = raw(coder, section(), n, 1)
            continue
        flags = d.u8()
        coder = d.u8()
        if kind == 1:
            shape = [d.varint() for _ in range(d.varint())]
            n = int(np.prod(shape, dtype=object)) * WIDTHS[coder]
            result[key] = dict(shape=shape, type=TYPES[coder], bytes=raw(flags, section(), n, WIDTHS[coder]))
            continue
        shrink = d.u8() if flags & 4 else 0
        step = struct.unpack("<f", d.take(4))[0]
        origin = (d.varint(), d.varint(), struct.unpack("<f", d.take(4))[0]) if flags & 8 else None
        shape = [d.varint() for _ in range(d.varint())]
        count = int(np.prod(shape, dtype=object))
        rows, columns = (shape[0], count // max(shape[0], 1)) if len(shape) > 1 else (1, count)
        matrix = 0 in shape and [int(np.prod(x, dtype=object)) for x in (shape[:1], shape[1:])] or [rows, columns]
        if len(shape) < 2: matrix = [1, count]
        width = max(1, min(count, columns if rows > 1 and columns <= 65536 else 1024))
        per_block = max(1, 2**20 // width) * width
        c = Cursor(section())
        trellis, lines = coder > 1, -(-count // width)
        assert coder < 4 and (not trellis or rows > 1 and width == columns and count), "code coder of %r" % key
        mix = coder in (1, 2)
        parameters = mix_parameters(c, lines, width) if mix else rans_classes(c, lines, width, trellis)
        factors = [None, None]
        for axis in (0, 1):
            if flags >> axis & 1: factors[axis] = scales(c, matrix[axis])
        assert c.at == len(c.data), "side section of %r" % key
        codes = np.zeros(count, np.int64)
        for start in range(0, count, per_block):
            n = min(per_block, count - start)
            codes[start:start + n] = (mix_codes if mix else rans_codes)(section(), n, width, start // width, parameters, trellis)
        result[key] = dict(shape=shape, codes=codes.astype(np.int32), step=step, shrink=shrink, rows=factors[0], columns=factors[1], origin=origin)
    assert at == len(data) and d.at == len(d.data), "the sections do not cover the file"
    return result


def draws(seed, stream, bound, count):
    """Uniform numbers in +-bound, by PCG XSL RR 128/64."""
    factor, mask, odd, values = 0x2360ED051FC65DA44385DF649FCCF645, (1 << 128) - 1, 2 * stream + 1, np.empty(count, np.uint32)
    state = (seed + odd) * factor + odd & mask
    for i in range(count):
        state = state * factor + odd & mask
        folded, turn = (state >> 64 ^ state) & (1 << 64) - 1, state >> 122
        values[i] = ((folded >> turn | folded << 64 - turn) & 0xFFFFFFFF) >> 9
    bound = np.float32(bound)
    return values.astype(np.float32) * np.float32(2.0**-23) * (bound + bound) - bound


def dequantise(t):
    r = np.abs(t["codes"].astype(np.float32))
    r = np.where(r > 0, r - np.float32(t["shrink"] / 256), r) * np.sign(t["codes"]).astype(np.float32)
    w = r * np.float32(t["step"])
    shape = (t["shape"][0], -1) if len(t["shape"]) > 1 and w.size else (1, -1)
    w = w.reshape(shape)
    if t["rows"] is not None: w = w * t["rows"][:, None]
    if t["columns"] is not None: w = w * t["columns"]
    if t["origin"]: w = w + draws(*t["origin"], w.size).reshape(w.shape)
    return w.reshape(t["shape"])


if __name__ == "__main__":
    content = decode(open(sys.argv[1], "rb").read())
    tensors = {k: dequantise(v) if "codes" in v else np.frombuffer(v["bytes"], np.uint8) for k, v in content.items() if isinstance(v, dict)}
    for k, v in tensors.items(): print(k, v.shape, zlib.crc32(content[k].get("codes", v).tobytes()), zlib.crc32(v.tobytes()))
    if len(sys.argv) > 2: np.savez(sys.argv[2], **tensors)
