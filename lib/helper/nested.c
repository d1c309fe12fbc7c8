// SPDX-License-Identifier: GPL-2.0-only
/* See nested.h. */
#include <linux/kvm.h>

#include "cpu.h"
#include "helper.h"
#include "nested.h"
#include "vm.h"

const struct nested_ops *nested_ops_of_cpu(void)
{
	return cpu_has_svm() ? &svm_ops : &vmx_ops;
}

const struct nested_ops *nested_ops_of_guests(void)
{
	return vm_offers_svm() ? &svm_ops : &vmx_ops;
}

const char *nested_format_name(uint16_t format)
{
	static const struct nested_ops *const ops[] = {
		[KVM_STATE_NESTED_FORMAT_VMX] = &vmx_ops,
		[KVM_STATE_NESTED_FORMAT_SVM] = &svm_ops,
	};

	return format < COUNT(ops) ? ops[format]->name : "unknown";
}
