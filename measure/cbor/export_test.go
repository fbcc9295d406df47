package cbor

// At returns how many bytes were read.
func (r *Reader) At() int { return len(r.s.all) - len(r.s.rest) }

// AnyTag reads a tag and returns it.
func (r *Reader) AnyTag() uint64 {
	_, n := r.want("a tag", majorTag, majorTag)
	return n
}
