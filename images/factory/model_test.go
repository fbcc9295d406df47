package factory

import (
	"encoding/asn1"
	"testing"
)

// modelSAN is the subject alternative name that swtpm_setup writes.
var modelSAN = []byte("\x30\x46\xa4\x44\x30\x42" +
	"\x31\x16\x30\x14\x06\x05\x67\x81\x05\x02\x01\x0c\x0b" + "id:00001014" +
	"\x31\x10\x30\x0e\x06\x05\x67\x81\x05\x02\x02\x0c\x05" + "swtpm" +
	"\x31\x16\x30\x14\x06\x05\x67\x81\x05\x02\x03\x0c\x0b" + "id:20191023")

func TestModelOfTheLabIsRead(t *testing.T) {
	if err := checkDirectoryName(modelSAN); err != nil {
		t.Error(err)
	}
	for n := range modelSAN {
		if checkDirectoryName(modelSAN[:n]) == nil {
			t.Errorf("cut after %d bytes it is accepted", n)
		}
	}
}

// FuzzDirectoryName demands that what is accepted is one DER sequence and
// nothing after it.
func FuzzDirectoryName(f *testing.F) {
	f.Add(modelSAN)
	f.Add([]byte{0x30, 0x02, 0xa4, 0x00})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		if checkDirectoryName(der) != nil {
			return
		}
		var raw asn1.RawValue
		if rest, err := asn1.Unmarshal(der, &raw); err != nil || len(rest) != 0 {
			t.Errorf("accepted with %d bytes after it, %v", len(rest), err)
		}
		if checkDirectoryName(append(der[:len(der):len(der)], 0)) == nil {
			t.Error("accepted with a byte more")
		}
	})
}
