package delivery_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"waxseal/fleet/delivery"
	"waxseal/measure"
	"waxseal/measure/wire"
)

var update = flag.Bool("update", false, "write testdata anew")

// The golden file is of a device that shows little and proves nothing.
func TestGoldenFileIsWhatIsWritten(t *testing.T) {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	data := must(delivery.Saved{
		Outcome: delivery.Refused, Reasons: []string{"credential: the device gave no proof"},
		Transcript: delivery.Transcript{
			Manifest: []byte("no manifest"), Issued: at, Received: at.Add(time.Second), Refusal: "device not ready: UNATTESTED(no TPM)",
			Request: wire.ProofRequest{
				Nonce: make([]byte, 48), Bank: measure.SHA384, PCRs: []measure.PCR{0, 12},
				IAK: wire.Credential{Blob: []byte("blob"), Secret: []byte("seed")}, IDevID: wire.Credential{Blob: []byte("blob"), Secret: []byte("seed")},
			},
			Identity: wire.Identity{Card: wire.Card{Role: wire.Active, Serial: "WX-0001", ChassisSerial: "WX-0001"}},
			Proof: &wire.Proof{
				PCRs: map[measure.PCR][]byte{0: make([]byte, 48)}, Quote: wire.Signed{Attest: []byte("quote"), Signature: []byte("signature")},
			},
		},
	}.Encode())(t)
	const path = "testdata/refused.json"
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if golden := must(os.ReadFile(path))(t); string(golden) != string(data) {
		t.Errorf("%s differs from what is written:\n%s", path, data)
	}
}
