package watchtest

import "slices"

// Attacks are all attacks, each with a name of its own.
func Attacks() []Attack {
	return slices.Concat(attacksByTC, attacksByRules, attacksByBPF, attacksBySocket, attacksByNetfilter, attacksByBridge, attacksOnWatch)
}
