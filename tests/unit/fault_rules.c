// SPDX-License-Identifier: MIT
/* The grammar of the fault driver's rules: what is accepted, and the sentence for what is not. */
#include "backends/fault/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "tests/lib/check.h"

#define NO_OPERATION(word) \
	"'" word "' is no operation: write read, write, flush, unmap, zeroes or any, joined by +"
#define NO_ACTION(word)                                                                    \
	"'" word "' is no action: write error[=KIND], tear[=BYTES], short[=BYTES], drop, " \
	"delay=TIME or hang"
#define NO_CONDITION(word) \
	"'" word "' is no condition: write range=A-B, after=N, count=N or chance=P"

static const struct {
	const char *text;
	unsigned count;	     /* of rules */
	const char *message; /* NULL: accepted */
} grammar_cases[] = {
	{NULL, 0, NULL},
	{"", 0, NULL},
	{" \t", 0, NULL},
	{" , ,", 0, NULL},
	{"read error", 1, NULL},
	{"\tread  \terror ", 1, NULL},
	{"read+write+flush+unmap+zeroes error=EIO", 1, NULL},
	{"any hang", 1, NULL},
	{"any drop,read delay=20ms,", 2, NULL},
	{"write tear, write tear=4K, write short, write short=0", 4, NULL},
	{"read error=medium-read range=4K-8K after=3 count=2 chance=12.5", 1, NULL},
	{"read error chance=0, read error chance=100%", 2, NULL},
	{"read", 0, "the rule 'read' has no action"},
	{"reed error", 0, NO_OPERATION("reed")},
	{"read+ error", 0, NO_OPERATION("")},
	{"read+any+x error", 0, NO_OPERATION("x")},
	{"READ error", 0, NO_OPERATION("READ")},
	{"read fail", 0, NO_ACTION("fail")},
	{"read delay", 0, NO_ACTION("delay")},
	{"read hang=1", 0, NO_ACTION("hang")},
	{"read drop=1", 0, NO_ACTION("drop")},
	{"read error=", 0, "'' is no kind of error"},
	{"read error=ENOTHING", 0, "'ENOTHING' is no kind of error"},
	{"read error=5", 0, "'5' is no kind of error"},
	{"read error twice", 0, NO_CONDITION("twice")},
	{"read error count", 0, NO_CONDITION("count")},
	{"read error every=2", 0, NO_CONDITION("every")},
	{"read error range=4K", 0, "'range=4K' has no end: write range=A-B"},
	{"read error range=8K-4K", 0, "'range=8K-4K' is empty"},
	{"read error range=4K-4K", 0, "'range=4K-4K' is empty"},
	{"read error chance=101", 0, "'101' is no chance: write 0 to 100 percent"},
	{"read error chance=-1", 0, "'-1' is no chance: write 0 to 100 percent"},
	{"read error chance=nan", 0, "'nan' is no chance: write 0 to 100 percent"},
	{"read error chance=", 0, "'' is no chance: write 0 to 100 percent"},
	{"read error chance=5%%", 0, "'5%%' is no chance: write 0 to 100 percent"},
	{"read error, write oops", 0, NO_ACTION("oops")},
};

static void test_grammar(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(grammar_cases); i++) {
		const char *message = grammar_cases[i].message;
		struct rules rules;
		struct err err = {.text = ""};

		check_context("'%s'", grammar_cases[i].text ? grammar_cases[i].text : "NULL");
		CHECK_EQ(rules_parse(grammar_cases[i].text, &rules, &err), message ? -1 : 0);
		CHECK_TEXT(err.text, message ? message : "");
		CHECK_TEXT(err.key, message ? "rules" : "");
		if (!message)
			CHECK_EQ(rules.count, grammar_cases[i].count);
	}
	check_finish();
}

/* Numbers that are none are refused by the same rules as in any other option. */
static void test_wrong_numbers(void **state)
{
	static const char *const texts[] = {
		"read delay=soon",     "read delay=",	       "write tear=-1",
		"write tear=x",	       "write short=1Q",       "read error after=",
		"read error after=-1", "read error count=1.5", "read error range=a-b",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct rules rules;
		struct err err = {.text = ""};

		check_context("'%s'", texts[i]);
		CHECK_EQ(rules_parse(texts[i], &rules, &err), -1);
		CHECK_TEXT(err.key, "rules");
		CHECK(*err.text);
	}
	check_finish();
}

static void test_limits_of_rules(void **state)
{
	char text[RULES_MAX * 16 + 16] = "", rule[sizeof(((struct rule *)NULL)->text) + 1];
	struct rules rules;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < RULES_MAX; i++)
		strcat(text, "any drop,");
	CHECK_EQ(rules_parse(text, &rules, &err), 0);
	CHECK_EQ(rules.count, RULES_MAX);
	strcat(text, "any drop");
	CHECK_EQ(rules_parse(text, &rules, &err), -1);
	CHECK_TEXT(err.text, "more than 32 rules");
	memset(rule, ' ', sizeof(rule));
	memcpy(rule, "any drop", 8);
	rule[sizeof(rule) - 1] = '\0';
	CHECK_EQ(rules_parse(rule, &rules, &err), -1);
	CHECK_TEXT(err.text, "a rule is longer than 159 bytes");
	rule[sizeof(rule) - 2] = '\0';
	CHECK_EQ(rules_parse(rule, &rules, &err), 0);
	check_finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grammar),
		cmocka_unit_test(test_wrong_numbers),
		cmocka_unit_test(test_limits_of_rules),
	};

	return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
