package evidence_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"

	"waxseal/measure/evidence"
)

// mutator makes mutants of the nursery's bundle.
type mutator struct {
	*nursery
	*rand.Rand
}

// mutant returns a bundle that was changed: in its file, in one or more of its
// fields, or by fields of other bundles. An error is the refusal of the file.
func (m mutator) mutant() (kind string, ev evidence.Evidence, err error) {
	switch m.IntN(4) {
	case 0:
		i := m.IntN(len(bytesKinds))
		file := m.changed(m.file, i, m.files[m.IntN(len(m.files))])
		ev, err = evidence.Parse(file)
		return "file: " + bytesKinds[i], ev, err
	case 1:
		for ev = m.parent.evidence; reflect.DeepEqual(ev, m.parent.evidence); {
			ev = m.swapped(ev)
		}
		return "fields of another bundle", ev, nil
	}
	ev, names := m.parent.evidence, []string{}
	for range 1 + m.IntN(3)/2 {
		name, i := fieldNames[m.IntN(len(fieldNames))], m.IntN(len(bytesKinds))
		donor := field(m.donors[m.IntN(len(m.donors))], name, m.Rand)
		put(&ev, name, m.Rand, func(b []byte) []byte { return m.changed(b, i, donor) })
		names = append(names, name+": "+bytesKinds[i])
	}
	return strings.Join(names, ", "), ev, nil
}

var bytesKinds = []string{"bit", "byte", "cut", "end cut off", "splice", "insertion", "length field", "two parts exchanged"}

// changed returns b after a change of the kind with that number. It is never b
// itself, unless there is nothing in it.
func (m mutator) changed(b []byte, kind int, donor []byte) []byte {
	if len(b) == 0 {
		return bytes.Clone(donor)
	}
	for range 100 {
		if out := m.change(bytes.Clone(b), kind, donor); !bytes.Equal(out, b) {
			return out
		}
		kind = 0 // what was the same before it was changed is changed in a bit
	}
	panic("a bit cannot be flipped")
}

func (m mutator) change(b []byte, kind int, donor []byte) []byte {
	at := m.IntN(len(b))
	n := 1 + m.IntN(min(64, len(b)-at))
	switch bytesKinds[kind] {
	case "bit":
		b[at] ^= 1 << m.IntN(8)
	case "byte":
		b[at] = byte(m.IntN(256))
	case "cut":
		return slices.Delete(b, at, at+n)
	case "end cut off":
		return b[:at]
	case "splice": // the same place of another bundle, as far as it goes
		if at < len(donor) {
			copy(b[at:at+n], donor[at:])
		}
	case "insertion":
		if from := m.IntN(len(donor) + 1); from < len(donor) {
			return slices.Insert(b, at, donor[from:min(len(donor), from+n)]...)
		}
	case "length field":
		m.setLength(b, at)
	case "two parts exchanged":
		if to := m.IntN(len(b) - n + 1); to+n <= at || at+n <= to {
			part := bytes.Clone(b[at : at+n])
			copy(b[at:at+n], b[to:to+n])
			copy(b[to:to+n], part)
		}
	}
	return b
}

// setLength overwrites two or four bytes, which may be a length or a count,
// with a value that lies by one or by much, in either order of bytes.
func (m mutator) setLength(b []byte, at int) {
	be := []binary.ByteOrder{binary.BigEndian, binary.LittleEndian}[m.IntN(2)]
	lie := []uint32{0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff}[m.IntN(8)]
	near := uint32(m.IntN(5)) - 2
	switch {
	case m.IntN(2) == 0 && at+4 <= len(b):
		if m.IntN(2) == 0 {
			lie = be.Uint32(b[at:]) + near
		}
		be.PutUint32(b[at:], lie)
	case at+2 <= len(b):
		if m.IntN(2) == 0 {
			lie = uint32(be.Uint16(b[at:])) + near
		}
		be.PutUint16(b[at:], uint16(lie))
	}
}

// fieldNames has those twice and more where there is more to find. (To look at
// a certificate takes twenty times as long as to look at the rest.)
var fieldNames = []string{"nonce", "quote", "quote", "quote", "signature", "signature", "log", "log", "log", "log", "PCR", "PCR", "content", "oIAK", "TLS", "IAK", "IDevID"}

// swapped returns ev with some fields, and not all, of one other bundle.
func (m mutator) swapped(ev evidence.Evidence) evidence.Evidence {
	from := m.donors[m.IntN(len(m.donors))]
	pick := 1 + m.IntN(1<<9-2)
	for i, swap := range []func(){
		func() { ev.Nonce = from.Nonce },
		func() { ev.Bank = from.Bank },
		func() { ev.PCRs = from.PCRs },
		func() { ev.Quoted = from.Quoted },
		func() { ev.Signature = from.Signature },
		func() { ev.Log = from.Log },
		func() { ev.Certificates = m.mixed(ev.Certificates, from.Certificates) },
		func() { ev.Card = from.Card },
		func() { ev.Contents = from.Contents },
	} {
		if pick&(1<<i) != 0 {
			swap()
		}
	}
	return ev
}

func (m mutator) mixed(a, b evidence.Certificates) evidence.Certificates {
	switch m.IntN(7) {
	case 0:
		a.OIAK = b.OIAK
	case 1:
		a.TLS = b.TLS
	case 2:
		a.IAK = b.IAK
	case 3:
		a.IDevID = b.IDevID
	case 4:
		a.OIAK, a.IAK = b.OIAK, b.IAK
	case 5:
		a.OIAK, a.TLS = a.TLS, a.OIAK
	default:
		return b
	}
	return a
}

// field returns the bytes of a field: of a certificate its DER, of the PCRs
// and contents one of them.
func field(ev evidence.Evidence, name string, r *rand.Rand) (b []byte) {
	put(&ev, name, r, func(old []byte) []byte { b = old; return old })
	return b
}

// put replaces a field of ev by what change makes of it, and leaves what ev
// shares with other bundles alone.
func put(ev *evidence.Evidence, name string, r *rand.Rand, change func([]byte) []byte) {
	chains := map[string]*[]string{"oIAK": &ev.Certificates.OIAK, "TLS": &ev.Certificates.TLS, "IAK": &ev.Certificates.IAK, "IDevID": &ev.Certificates.IDevID}
	switch name {
	case "nonce":
		ev.Nonce = change(ev.Nonce)
	case "quote":
		ev.Quoted = change(ev.Quoted)
	case "signature":
		ev.Signature = change(ev.Signature)
	case "log":
		ev.Log = change(ev.Log)
	case "PCR":
		pcr := asked[r.IntN(len(asked))]
		ev.PCRs = maps.Clone(ev.PCRs)
		ev.PCRs[pcr] = change(ev.PCRs[pcr])
	case "content":
		ev.Contents = maps.Clone(ev.Contents)
		for sum, b := range ev.Contents {
			ev.Contents[sum] = change(b)
		}
	default:
		chain := chains[name]
		var cert []byte
		if len(*chain) > 0 {
			if parsed, err := evidence.ParsePEM((*chain)[0]); err == nil {
				cert = parsed.Raw
			}
		}
		*chain = []string{text(change(cert))}
	}
}
