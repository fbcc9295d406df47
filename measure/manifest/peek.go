package manifest

import (
	"fmt"

	"waxseal/measure/manifest/sealed"
)

// Peek returns what a sealed file claims, without a look at its signatures. It
// is for telling people what else is wrong beside them, never for trusting it.
func Peek(file []byte) (Shipment, error) {
	payload, err := sealed.Peek(Format, file)
	if err != nil {
		return Shipment{}, fmt.Errorf("shipment manifest: %w", err)
	}
	return Parse(payload)
}
