// Package cost measures what a watch costs a router, and how soon it finds
// what it is there for. It holds benchmarks and nothing else; scripts/bench
// runs them. They start the real program, which -waxseald names, in the
// namespaces of package watchtest, and need root.
//
// A time means little on a machine that others use too, so what is compared
// is measured by turns in one run.
package cost
