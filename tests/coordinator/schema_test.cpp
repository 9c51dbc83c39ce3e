#include "coordinator/schema.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using testing::HasSubstr;

struct Schema : testing::Test {
  tests::Temporary folder;
  soci::session sql{soci::sqlite3, "dbname=\"" + (folder / "test.db") + "\""};

  int count(const std::string& table) {
    int n = 0;
    sql << "SELECT count(*) FROM " + table, soci::into(n);
    return n;
  }
};

TEST_F(Schema, AnEmptyDatabaseComesToTheNewestVersionAndStaysThere) {
  EXPECT_EQ(schema_version(sql), 0);
  migrate(sql, schema_versions());
  EXPECT_EQ(schema_version(sql), static_cast<int>(schema_versions().size()));
  migrate(sql, schema_versions());
  EXPECT_EQ(count("schema_version"), 1);
}

TEST_F(Schema, AnOlderDatabaseKeepsItsRows) {
  std::vector<std::vector<std::string>> versions = {{"CREATE TABLE things (name TEXT)"}};
  migrate(sql, versions);
  sql << "INSERT INTO things VALUES ('kept')";
  versions.push_back({"ALTER TABLE things ADD COLUMN size BIGINT NOT NULL DEFAULT 7"});
  migrate(sql, versions);
  int size = 0;
  sql << "SELECT size FROM things WHERE name = 'kept'", soci::into(size);
  EXPECT_EQ(size, 7);
  EXPECT_EQ(schema_version(sql), 2);
}

TEST_F(Schema, AStepThatFailsLeavesTheVersionBeforeIt) {
  EXPECT_THROW(migrate(sql, {{"CREATE TABLE one (x TEXT)"}, {"CREATE TABLE two (x TEXT)", "NO SUCH STATEMENT"}}),
               soci::soci_error);
  EXPECT_EQ(schema_version(sql), 1);
  EXPECT_EQ(count("sqlite_master WHERE name = 'two'"), 0);
}

TEST_F(Schema, ADatabaseOfANewerBuildIsRefused) {
  migrate(sql, {{"CREATE TABLE a (x TEXT)"}, {"CREATE TABLE b (x TEXT)"}});
  try {
    migrate(sql, {{"CREATE TABLE a (x TEXT)"}});
    FAIL() << "opened";
  } catch (const Exception& e) {
    EXPECT_EQ(e.error().kind, Error::Kind::unsupported);
    EXPECT_THAT(e.what(), HasSubstr("version 2, this build knows up to 1"));
  }
}

}  // namespace
}  // namespace cloister::coordinator
